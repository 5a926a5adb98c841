//! eStargz in parts: headers share gzip members with contents, so those of files that are here are predicted.

use coracle_engine::convert::Format;
use coracle_engine::pull::{From, Headers, Pulled};
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::tar_builder::{Header, Magic, TarBuilder};

use crate::images::site::Site;

use super::chunked::{converted, layer};
use super::{NEW, OLD, check, from, nothing_over, pull};

/// Which headers are written otherwise than those of the first version.
#[derive(Clone, Copy, PartialEq)]
enum Odd {
    None,
    /// One, behind a file that changes.
    Seen,
    /// One, behind a file that stays.
    Unseen,
    /// All.
    All,
}

fn version(number: u64, odd: Odd) -> Bundle {
    let mut tar = TarBuilder::new();
    let mut file = |name: String, content: Vec<u8>, odd: bool| {
        let uname = if odd { b"daemon".to_vec() } else { Vec::new() };
        let magic = if odd { Magic::Gnu } else { Magic::Ustar };
        let header = Header { size: content.len() as u64, uname, magic, ..Header::new(name) };
        tar.entry(&header, content);
    };
    for name in 0..60 {
        let all = odd == Odd::All;
        file(format!("usr/kept{name}"), binary(name, 20_000 + 911 * name as usize), all);
        file(format!("usr/empty{name}"), Vec::new(), all || (odd == Odd::Unseen && name == 31));
        if name % 4 == 0 {
            file(format!("usr/changes{name}"), mutate(&binary(500 + name, 20_000), number, 3), all);
            file(format!("usr/after{name}"), text(name, 40), all || (odd == Odd::Seen && name == 32));
        }
    }
    image("amd64", &[tar.finish()], Compression::Gzip).unwrap()
}

/// The new version on the old one: how its headers became known, its image, and the parts of the blob that were fetched.
fn updated(site: &Site, odd: Odd) -> (Pulled, Option<Headers>, Vec<(u64, u64)>, u64) {
    converted(site, "old", &version(1, Odd::None), Format::Stargz);
    let new = converted(site, "new", &version(2, odd), Format::Stargz);
    pull(site, OLD).unwrap();
    site.faults().forget();
    let pulled = pull(site, NEW).unwrap();
    assert_eq!(from(&pulled), [From::Chunks], "{:?} {:?}", pulled.notes, pulled.fallbacks);
    check(site, &pulled, &new);
    nothing_over(site);
    let (blob, size) = layer(&new, 0);
    let mut asked = served(site, &blob);
    asked.sort_unstable();
    assert!(asked.windows(2).all(|pair| pair[0].1 <= pair[1].0), "a byte was fetched twice: {asked:?}");
    let headers = pulled.layers[0].headers;
    (pulled, headers, asked, size)
}

/// The ranges of a blob that were served.
fn served(site: &Site, blob: &str) -> Vec<(u64, u64)> {
    let answers = site.faults().answers().into_iter().filter(|(request, ..)| request.path.ends_with(blob));
    let mut out = Vec::new();
    for (request, status, bytes) in answers {
        let ranges = request.header("range").expect("a range").strip_prefix("bytes=").unwrap().to_owned();
        let one = |range: &str| -> (u64, u64) {
            let (start, last) = range.split_once('-').unwrap();
            (start.parse().unwrap(), last.parse::<u64>().unwrap() + 1)
        };
        let ranges: Vec<_> = ranges.split(',').map(one).collect();
        // Several come with a head before each of them.
        assert!(status == 206 && (bytes == sum(&ranges) || ranges.len() > 1 && bytes > sum(&ranges)));
        out.extend(ranges);
    }
    out
}

fn sum(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(start, end)| end - start).sum()
}

#[test]
fn only_files_that_changed_are_fetched() {
    let site = Site::new();
    let (_, headers, asked, size) = updated(&site, Odd::None);
    assert_eq!(headers, Some(Headers::Predicted));
    assert!(sum(&asked) * 3 < size, "{asked:?} of {size}");
}

/// A header that came with the content before it is taken as it is.
#[test]
fn what_came_needs_no_prediction() {
    let site = Site::new();
    let (_, headers, asked, size) = updated(&site, Odd::Seen);
    assert_eq!(headers, Some(Headers::Predicted));
    assert!(sum(&asked) * 3 < size, "{asked:?} of {size}");
}

/// The rest is fetched, and nothing twice.
#[test]
fn a_wrong_guess_costs_no_byte_twice() {
    let site = Site::new();
    let (_, headers, asked, size) = updated(&site, Odd::Unseen);
    assert_eq!(headers, Some(Headers::Corrected));
    assert_eq!(sum(&asked), size);
}

/// The first headers that come tell that the layer was written otherwise: no more parts are asked for.
#[test]
fn another_writer_is_seen_early() {
    let site = Site::new();
    let (pulled, headers, asked, size) = updated(&site, Odd::All);
    assert_eq!(headers, Some(Headers::Corrected));
    assert_eq!(sum(&asked), size);
    assert!(pulled.fallbacks.is_empty());
}
