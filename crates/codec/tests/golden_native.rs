//! The stored native deltas: each good one gives its target in both decoders, each bad one its error.
//!
//! Vectors are never changed. With `CORACLE_NEW_VECTORS=1` the ones listed here that are not stored yet are written.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use coracle_codec::ReadAt;
use coracle_codec::delta::Effort;
use coracle_codec::digest::Digest;
use coracle_codec::native::entropy::{self, Method};
use coracle_codec::native::{
    Archive, Base, Block, Head, Limits, Options, Origin, Parts, Sources, Tree, TreeFile, apply, diff,
};
use coracle_codec::observe::Quiet;
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::native::{self as second, deflate_stream};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::{Value, json};

/// A set of vectors: those of this page, or those of `golden_packed`.
pub fn folder(set: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../testkit/golden", set].iter().collect()
}

fn gzip(content: &[u8], encoder: u64) -> Vec<u8> {
    let stream = deflate_stream(content, encoder).unwrap();
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3][..], &stream, &[0; 8]].concat()
}

/// The old archive of all vectors.
fn old() -> Vec<u8> {
    TarBuilder::new()
        .dir("d")
        .file("d/text", text(1, 3000))
        .file("d/text.gz", gzip(&text(1, 3000), 0x199))
        .file("d/zlib.gz", gzip(&text(2, 3000), 0x068))
        .file("program", binary(3, 6000))
        .symlink("link", "program")
        .file("long/".repeat(30), b"a long name")
        .finish()
}

fn targets() -> Vec<(&'static str, Vec<u8>)> {
    let edited = mutate(&text(1, 3000), 5, 6);
    let mut small = TarBuilder::new();
    small.file("program", mutate(&binary(3, 6000), 4, 20)).symlink("link", "elsewhere").dir("d");
    let mut members = TarBuilder::new();
    for (i, encoder) in [0x199, 0x119, 0x149, 0x068, 0x038, 0x092].into_iter().enumerate() {
        members.file(format!("d/{i}.gz"), gzip(&edited, encoder));
    }
    let mut moved = TarBuilder::new();
    moved.file("d/zlib.gz", gzip(&[&text(2, 3000)[..], b"end"].concat(), 0x068));
    moved.file("new/program", binary(3, 6000)).file("long/".repeat(30), b"a longer name").file("empty", b"");
    let odd = [&small.clone().finish()[..], b"behind the end", &[0; 700]].concat();
    vec![
        ("same", old()),
        ("changed", small.finish()),
        ("members", members.finish()),
        ("moved", moved.finish()),
        ("odd", odd),
        ("empty", Vec::new()),
    ]
}

/// Deltas by name, with their targets.
fn good() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let tree = Base::Tree { apply_whiteouts: false, any_mode: true };
    let usual = Options::default();
    let plain = Options { parts: Parts { mixing: false, ..Parts::default() }, ..usual.clone() };
    let fast = Options { effort: Effort::new(1).unwrap(), ..usual.clone() };
    let mut out = Vec::new();
    for (name, target) in targets() {
        for (kind, options) in [
            ("mixing", usual.clone()),
            ("lzma", plain.clone()),
            ("zstd", fast.clone()),
            ("tree", Options { base: tree, ..usual.clone() }),
        ] {
            let old = old();
            let archives: [&dyn ReadAt; 1] = [&old];
            let mut delta = Vec::new();
            diff(&archives, &target, &mut delta, &options, &Quiet).unwrap();
            out.push((format!("{name}-{kind}"), delta, target.clone()));
        }
    }
    out
}

/// A delta of one block, its streams stored, that claims to give `target`.
fn delta(target: &[u8], output: u64, streams: &[(u8, &[u8])]) -> Vec<u8> {
    let streams: Vec<(u8, u8, u64, &[u8])> =
        streams.iter().map(|s| (s.0, 0, s.1.len() as u64, s.1)).collect();
    with_table(target, output, &streams, 1 << 24)
}

/// The same with a table of streams: number, method, length uncompressed, bytes.
fn with_table(target: &[u8], output: u64, streams: &[(u8, u8, u64, &[u8])], memory: u64) -> Vec<u8> {
    let mut block = vec![streams.len() as u8];
    for (id, method, len, bytes) in streams {
        block.extend([*id, *method]);
        number(&mut block, *len);
        number(&mut block, bytes.len() as u64);
    }
    streams.iter().for_each(|s| block.extend_from_slice(s.3));
    let head = head(target, output, memory, &block);
    [head.to_bytes(), block].concat()
}

fn head(target: &[u8], output: u64, memory: u64, block: &[u8]) -> Head {
    let mut check = [0; 8];
    check.copy_from_slice(&Digest::of(block).as_bytes()[..8]);
    let old = old();
    Head {
        size: output,
        digest: Digest::of(target),
        memory,
        encoders: Vec::new(),
        origin: Origin::Archives(vec![Archive { size: old.len() as u64, digest: Digest::of(&old) }]),
        blocks: vec![Block { output, encoded: block.len() as u64, check }],
    }
}

pub fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Head and rest with the check of the head put right.
pub fn signed(head: &[u8], rest: &[u8]) -> Vec<u8> {
    let digest = Digest::of(head);
    let check = &digest.as_bytes()[..8];
    [&b"coracle\x01"[..], &(head.len() as u32).to_le_bytes(), head, check, rest].concat()
}

/// Damaged and hostile deltas by name, with the start of the error.
fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let five = |streams: &[(u8, &[u8])]| delta(b"hello", 5, streams);
    let zeros = delta(&[0; 9], 9, &[(0, &[3, 9])]);
    let header = |fields: &[u8], names: &[u8]| delta(b"", 512, &[(0, &[0]), (1, fields), (2, names)]);
    let part = |plan: &[u8], rest: &[(u8, &[u8])]| five(&[&[(0, plan)][..], rest].concat());
    let table = |rows: &[(u8, u8, u64, &[u8])]| with_table(b"hello", 5, rows, 1 << 24);
    let mut damaged_head = zeros.clone();
    damaged_head[14] ^= 1;
    let mut damaged_block = zeros.clone();
    *damaged_block.last_mut().unwrap() ^= 1;
    let mut version = zeros.clone();
    version[7] = 2;
    let bare = &zeros[12..zeros.len() - 8 - 7];
    let mut features = bare.to_vec();
    features[0] = 1;
    let with = |change: fn(&mut Head)| {
        let mut head = head(&[0; 9], 9, 1 << 24, &[1, 0, 0, 2, 2, 3, 9]);
        change(&mut head);
        head.to_bytes()
    };
    let tree = |path: &[u8]| {
        with(|_| {});
        let files = vec![TreeFile { path: path.to_vec(), size: 3000 }];
        let digest = Digest::of(Digest::of(b"another").as_bytes());
        let tree = Tree { files, digest, checks: vec![[0; 4]] };
        let mut head = head(&[0; 9], 9, 1 << 24, &[1, 0, 0, 2, 2, 3, 9]);
        head.origin = Origin::Tree(tree);
        [head.to_bytes(), vec![1, 0, 0, 2, 2, 3, 9]].concat()
    };
    let wide = [&[0; 1][..], &[0x80; 9], &[1]].concat();
    let noise = entropy::encode(Method::Lzma, b"hello", 6);
    vec![
        ("magic", b"coracl\0\x01".to_vec(), "not a native delta"),
        ("magic-only", b"coracle\x01".to_vec(), "delta ends inside its head"),
        ("magic-cut", b"corac".to_vec(), "delta ends inside its magic"),
        ("version-2", version, "native delta of version 2"),
        ("head-cut", zeros[..40].to_vec(), "delta ends inside its head"),
        ("head-damaged", damaged_head, "head of the delta is damaged"),
        ("head-huge", b"coracle\x01\xff\xff\xff\xff".to_vec(), "length of the head is 4294967295"),
        ("head-features", signed(&features, &[]), "delta needs features"),
        ("head-left-over", signed(&[bare, &[0]].concat(), &[]), "head is longer"),
        ("head-number", signed(&wide, &[]), "head: a number is too large"),
        ("head-blocks-short", with(|h| h.blocks.clear()), "delta contradicts itself: the blocks make less"),
        ("head-blocks-long", with(|h| h.blocks[0].output = 10), "output of a block is 10"),
        ("head-memory", with(|h| h.memory = 1 << 40), "delta needs 1099511627776 bytes of memory"),
        ("head-output", with(|h| h.size = 1 << 40), "output of 1099511627776 bytes exceeds"),
        (
            "head-archives",
            with(|h| h.origin = Origin::Archives(Vec::new())),
            "delta was made from 0 old archives",
        ),
        (
            "source-other",
            with(|h| {
                h.origin = Origin::Archives(vec![Archive { size: 5, digest: Digest::of(b"other") }]);
            }),
            "old archive 1 is sha256:",
        ),
        ("tree-path-dotdot", tree(b"d/../x"), "unsafe or empty source path"),
        ("tree-path-absolute", tree(b"/etc/passwd"), "unsafe or empty source path"),
        ("tree-missing", tree(b"none"), "source file \"none\": not found"),
        ("tree-size", tree(b"program"), "source file \"program\" has 6000 bytes"),
        ("tree-content", tree(b"d/text"), "source file \"d/text\" is not the one"),
        ("block-cut", zeros[..zeros.len() - 1].to_vec(), "delta ends inside its blocks"),
        ("block-damaged", damaged_block, "block 1 of 1 is damaged"),
        (
            "sections-cut",
            [&zeros[..], &[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1]].concat(),
            "delta ends inside its sections",
        ),
        ("table-stream", table(&[(11, 0, 1, b"x")]), "unknown stream 11"),
        (
            "table-order",
            table(&[(3, 0, 1, b"x"), (0, 0, 1, b"x")]),
            "delta contradicts itself: streams are not in order",
        ),
        ("table-method", table(&[(0, 4, 1, b"x")]), "unknown compression method 4"),
        (
            "table-memory",
            with_table(b"", 5, &[(0, 3, 900, b"x")], 1000),
            "delta takes more than the 1000 bytes",
        ),
        ("table-huge", table(&[(0, 3, 1 << 60, b"x")]), "length of a stream is"),
        ("stored-short", table(&[(0, 0, 3, b"xy")]), "stream plan of block 1 does not decode"),
        ("zstd-garbage", table(&[(0, 1, 3, b"garbage")]), "stream plan of block 1 does not decode"),
        ("lzma-short", table(&[(8, 2, 5, &noise[..4])]), "stream text of block 1 does not decode"),
        ("item", five(&[(0, &[4])]), "unknown item 4"),
        ("item-missing", five(&[(0, &[3, 3])]), "plan ends too early"),
        ("zeros-0", five(&[(0, &[3, 0])]), "delta contradicts itself: an item of no bytes"),
        ("zeros-many", five(&[(0, &[3, 6])]), "length of zeros is 6"),
        ("stream-left-over", delta(&[0; 5], 5, &[(0, &[3, 5, 0])]), "plan is longer"),
        ("result", five(&[(0, &[3, 5])]), "result is sha256:"),
        ("whole-none", five(&[(0, &[1, 126])]), "delta contradicts itself: an item refers to no old member"),
        ("whole-too-long", five(&[(0, &[1, 2])]), "delta contradicts itself: a block makes more"),
        ("header-none", header(&[101, 0], b""), "delta contradicts itself: a header refers to no old member"),
        ("header-flags", header(&[0, 64], b""), "flags of a header is 64"),
        ("header-blocks-0", header(&[0, 1, 0], b""), "delta contradicts itself: a header of no blocks"),
        ("header-blocks", header(&[0, 1, 0x81, 0x40], b""), "blocks of a header is 8193"),
        ("header-time", header(&[0, 2, 0, 1], b""), "delta contradicts itself: a time that no header holds"),
        ("header-time-place", header(&[0, 2, 1], b""), "place of a time is 1"),
        ("header-name", header(&[0, 4, 0], &[b'x'; 120]), "delta contradicts itself: a name is too long"),
        ("header-name-shared", header(&[0, 4, 1], b"\0"), "shared start of a name is 1"),
        ("header-patch", header(&[0, 8, 0, 0xff, 3, 1], b"xy"), "delta contradicts itself: a patch beyond"),
        ("part-transform", part(&[2, 2, 5, 0, 0, 0], &[]), "unknown transform 2"),
        ("part-0", part(&[2, 0, 0, 0, 0, 0], &[]), "delta contradicts itself: an item of no bytes"),
        ("part-long", part(&[2, 0, 6, 0, 0, 0], &[]), "length of a part is 6"),
        ("part-class", part(&[2, 0, 5, 3, 0, 0], &[]), "class of literals is 3"),
        ("part-views", part(&[2, 0, 5, 0, 0x81, 0x80, 4], &[]), "number of views is 65537"),
        ("view-kind", part(&[2, 0, 5, 0, 1, 2, 3], &[]), "unknown view 3"),
        ("view-range", part(&[2, 0, 5, 0, 1, 2, 1, 0, 0xff, 0x7f], &[]), "length of a view is 16383"),
        (
            "view-no-stream",
            part(&[2, 0, 5, 0, 1, 8, 2, 5, 9], &[]),
            "deflate stream at byte 5 of old member 4",
        ),
        (
            "view-stream-short",
            part(&[2, 0, 5, 0, 1, 4, 2, 10, 9], &[]),
            "deflate stream at byte 10 of old member 2",
        ),
        (
            "view-memory",
            part(&[2, 0, 5, 0, 1, 4, 2, 10, 0xff, 0xff, 0xff, 0x7f], &[]),
            "delta takes more than the",
        ),
        (
            "literal-long",
            part(&[2, 0, 5, 0, 0, 0], &[(3, &[6]), (8, b"hello!")]),
            "delta contradicts itself: operations make more",
        ),
        ("literal-missing", part(&[2, 0, 5, 0, 0, 0], &[(3, &[5]), (8, b"hell")]), "text ends too early"),
        (
            "copy-nothing",
            part(&[2, 0, 5, 0, 0, 0], &[(3, &[0]), (4, &[5]), (5, &[0])]),
            "delta contradicts itself: a copy beyond",
        ),
        (
            "copy-0",
            part(&[2, 0, 5, 0, 1, 2, 0, 0], &[(3, &[0]), (4, &[0]), (5, &[0])]),
            "delta contradicts itself: a copy of no bytes",
        ),
        (
            "copy-before",
            part(&[2, 0, 5, 0, 1, 2, 0, 0], &[(3, &[0]), (4, &[5]), (5, &[1])]),
            "delta contradicts itself: a copy beyond",
        ),
        (
            "copy-border",
            part(&[2, 0, 5, 0, 2, 2, 1, 0, 3, 1, 1, 0, 3, 0], &[(3, &[0]), (4, &[5]), (5, &[0])]),
            "delta contradicts itself: a copy across",
        ),
        (
            "corrections-left",
            part(&[2, 0, 5, 0, 1, 2, 0, 2], &[(3, &[0]), (4, &[5]), (5, &[0]), (6, &[0, 9]), (7, &[1, 1])]),
            "delta contradicts itself: operations make more",
        ),
        ("encoder", part(&[2, 1, 5, 0, 0, 0, 1, 0, 0x0a, 5, 5], &[]), "unknown deflate encoder 10"),
        (
            "rebuilt-length",
            part(&[2, 1, 5, 0, 0, 0, 1, 0, 0x99, 3, 5, 2], &[(3, &[2]), (8, b"hi")]),
            "rebuilt deflate stream has 4 bytes",
        ),
        (
            "rebuilt-ratio",
            part(&[2, 1, 5, 0, 0, 0, 1, 0, 0x99, 3, 5, 0xff, 0xff, 0xff, 0x7f], &[]),
            "delta asks for more work",
        ),
        ("streams-work", table(&[(0, 1, 1 << 17, b"x")]), "delta asks for more work"),
        (
            "mixing-work",
            with_table(b"", 1 << 20, &[(0, 3, 19 << 20, b"x")], 1 << 26),
            "delta asks for more work",
        ),
    ]
}

pub fn run(delta: &[u8], old: &dyn ReadAt) -> Result<Vec<u8>, String> {
    let archives = [old];
    let limits = Limits { max_output: 1 << 30, max_memory: 1 << 27, ..Limits::default() };
    let mut out = Vec::new();
    let result = apply(delta, Sources::Archives(&archives), &mut out, &limits, NonZeroUsize::MIN, &Quiet);
    result.map(|_| out).map_err(|e| e.to_string())
}

/// All bad vectors of a set, at least so many, are refused with the errors that they name.
pub fn all_refused(set: &str, at_least: usize) {
    let old = fs::read(folder(set).join("old.tar")).unwrap();
    let cases = stored(set, "bad");
    assert!(cases.len() >= at_least, "{}", cases.len());
    let mut wrong = Vec::new();
    for (name, delta, case) in cases {
        let wanted = case["expect_error"].as_str().unwrap();
        match run(&delta, &old) {
            Ok(_) => wrong.push(format!("{name} was accepted")),
            Err(error) if !error.starts_with(wanted) => {
                wrong.push(format!("{name}: {error}; wanted {wanted}"))
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Writes what is listed and not stored.
pub fn store(set: &str, kind: &str, name: &str, old: &[u8], delta: &[u8], case: &Value) {
    let place = folder(set).join(kind).join(name);
    if std::env::var_os("CORACLE_NEW_VECTORS").is_some() && !place.exists() {
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("delta.coracle"), delta).unwrap();
        fs::write(place.join("case.json"), format!("{case:#}\n")).unwrap();
        let old_tar = folder(set).join("old.tar");
        if !old_tar.exists() {
            fs::write(old_tar, old).unwrap();
        }
    }
}

/// Stored cases: name, delta, description.
pub fn stored(set: &str, kind: &str) -> Vec<(String, Vec<u8>, Value)> {
    let mut all: Vec<_> = fs::read_dir(folder(set).join(kind))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let case = serde_json::from_slice(&fs::read(path.join("case.json")).unwrap()).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path.join("delta.coracle")).unwrap(), case)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn good_vectors_give_their_targets_in_both_decoders() {
    for (name, delta, target) in good() {
        let case = json!({ "size": target.len(), "digest": Digest::of(&target).to_string() });
        store("native", "good", &name, &old(), &delta, &case);
    }
    all_made("native", 24);
}

/// All stored deltas of a set that are good give their targets, in both decoders.
pub fn all_made(set: &str, at_least: usize) {
    let old = fs::read(folder(set).join("old.tar")).unwrap();
    let archives: [&dyn ReadAt; 1] = [&old];
    let tree = coracle_codec::source::TarSource::new(archives.to_vec(), Default::default(), &Quiet).unwrap();
    let cases = stored(set, "good");
    assert!(cases.len() >= at_least, "{}", cases.len());
    for (name, delta, case) in cases {
        let made = run(&delta, &old).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (Digest::of(&made).to_string(), made.len() as u64),
            (case["digest"].as_str().unwrap().into(), case["size"].as_u64().unwrap()),
            "{name}"
        );
        let head = Head::read(&mut &delta[..], &Limits::default()).unwrap();
        let other = match &head.origin {
            Origin::Archives(_) => {
                second::apply(&delta, second::Sources::Archives(std::slice::from_ref(&old)))
            }
            Origin::Tree(files) => {
                let read = |path: &[u8]| {
                    let mut content = Vec::new();
                    let mut file = coracle_codec::source::Source::open_path(&tree, path).unwrap();
                    std::io::Read::read_to_end(&mut file, &mut content).unwrap();
                    (path.to_vec(), content)
                };
                let files = files.files.iter().map(|f| read(&f.path)).collect();
                second::apply(&delta, second::Sources::Tree(&files))
            }
        };
        assert!(other.as_ref() == Ok(&made), "{name}: the second decoder: {:?}", other.err());
    }
}

#[test]
fn bad_vectors_are_refused_with_their_errors() {
    for (name, delta, error) in bad() {
        store("native", "bad", name, &old(), &delta, &json!({ "expect_error": error }));
    }
    all_refused("native", 60);
}
