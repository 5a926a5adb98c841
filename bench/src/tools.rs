//! The tools and their configurations, as a table.
//!
//! Commands are run in a folder with `old.tar` and `new.tar` and, for those that read one, `tree`, the extracted old
//! tar. Creating leaves `delta`, applying leaves `out.tar`. Words in braces are replaced: see [`crate::pair`].

/// Where the commands of a tool come from.
#[derive(Debug)]
pub struct Tool {
    /// The name in the results. Two entries may have the same: the first that is there is used.
    pub name: &'static str,
    /// The program that makes deltas.
    pub create: &'static str,
    /// The program that applies them.
    pub apply: &'static str,
    /// Where one gets it.
    pub origin: &'static str,
    /// A command whose output has the version in it; `{create}` is the first program.
    pub version: &'static [&'static str],
    /// Arguments with which the first program shows its options.
    pub help: &'static [&'static str],
    /// Whether applying needs the extracted old tar.
    pub reads_tree: bool,
    /// The largest old tar in bytes for which it is worth the time.
    pub largest_old: Option<u64>,
    /// The configurations.
    pub configs: &'static [Config],
}

/// One configuration of a tool.
#[derive(Debug)]
pub struct Config {
    /// The name in the results. Those that only show a range have `effort` in it.
    pub name: &'static str,
    /// An option that must be in the help of the program.
    pub needs: Option<&'static str>,
    /// Arguments that make `delta`.
    pub create: &'static [&'static str],
    /// Arguments that make `out.tar`.
    pub apply: &'static [&'static str],
}

/// Coracle. The name of a program stands for the one given on the command line.
pub const CORACLE: Tool = Tool {
    name: "coracle",
    create: "coracle",
    apply: "coracle",
    origin: "this project",
    version: &["{create}", "--version"],
    help: &["diff", "--help"],
    reads_tree: true,
    largest_old: None,
    configs: &[
        coracle("v1", None, &["diff", "--quiet", "--format", "v1", "old.tar", "new.tar", "delta"]),
        coracle("v2", None, &["diff", "--quiet", "--format", "v2", "old.tar", "new.tar", "delta"]),
        native("native", NATIVE),
        native(
            "native-effort-1",
            &["diff", "--quiet", "--codec", "native", "--effort", "1", "old.tar", "new.tar", "delta"],
        ),
        effort("v1-effort-1", &["diff", "--quiet", "--effort", "1", "old.tar", "new.tar", "delta"]),
        effort("v1-effort-3", &["diff", "--quiet", "--effort", "3", "old.tar", "new.tar", "delta"]),
        effort("v1-effort-5", &["diff", "--quiet", "--effort", "5", "old.tar", "new.tar", "delta"]),
        effort("v1-effort-7", &["diff", "--quiet", "--effort", "7", "old.tar", "new.tar", "delta"]),
        effort("v1-effort-9", &["diff", "--quiet", "--effort", "9", "old.tar", "new.tar", "delta"]),
    ],
};

/// How Coracle applies a delta of any kind.
pub const CORACLE_APPLY: &[&str] =
    &["patch", "--quiet", "--expect", "sha256:{digest}", "delta", "tree", "out.tar"];

const fn coracle(name: &'static str, needs: Option<&'static str>, create: &'static [&'static str]) -> Config {
    Config { name, needs, create, apply: CORACLE_APPLY }
}

/// How Coracle makes and applies a native delta: from the old tar, whose headers it needs.
const NATIVE: &[&str] = &["diff", "--quiet", "--codec", "native", "old.tar", "new.tar", "delta"];
const NATIVE_APPLY: &[&str] =
    &["patch", "--quiet", "--expect", "sha256:{digest}", "delta", "old.tar", "out.tar"];

const fn native(name: &'static str, create: &'static [&'static str]) -> Config {
    Config { name, needs: Some("--codec"), create, apply: NATIVE_APPLY }
}

const fn effort(name: &'static str, create: &'static [&'static str]) -> Config {
    coracle(name, Some("--effort"), create)
}

/// What Coracle is compared with.
pub const PEERS: &[Tool] = &[
    Tool {
        name: "tar-diff",
        create: "tar-diff",
        apply: "tar-patch",
        origin: "go install github.com/containers/tar-diff/cmd/...",
        version: &["{create}", "-version"],
        help: &["-h"],
        reads_tree: true,
        largest_old: None,
        configs: &[
            Config {
                name: "bsdiff",
                needs: None,
                create: &["old.tar", "new.tar", "delta"],
                apply: &["delta", "tree", "out.tar"],
            },
            Config {
                name: "zstd",
                needs: Some("-binary-diff"),
                create: &["-binary-diff", "zstd", "old.tar", "new.tar", "delta"],
                apply: &["delta", "tree", "out.tar"],
            },
        ],
    },
    // HDiffPatch without its own test of the delta, which is made here for all tools.
    Tool {
        name: "hdiffpatch",
        create: "hdiffz",
        apply: "hpatchz",
        origin: "the PyPI package hdiffpatch, or the project HDiffPatch",
        version: &["{create}", "-v"],
        help: &["-h"],
        reads_tree: false,
        largest_old: None,
        configs: &[Config {
            name: "zstd-20",
            needs: None,
            create: &["-f", "-m-6", "-p-1", "-d", "-c-zstd-20-27", "old.tar", "new.tar", "delta"],
            apply: &["-f", "-m", "old.tar", "delta", "out.tar"],
        }],
    },
    Tool {
        name: "hdiffpatch",
        create: "python3",
        apply: "python3",
        origin: "the PyPI package hdiffpatch",
        version: &[
            "{create}",
            "-c",
            "import hdiffpatch, importlib.metadata as m; print(m.version('hdiffpatch'))",
        ],
        help: &["-h"],
        reads_tree: false,
        largest_old: None,
        configs: &[Config { name: "zstd-20", needs: None, create: &["-c", HDIFF], apply: &["-c", HPATCH] }],
    },
    Tool {
        name: "zstd",
        create: "zstd",
        apply: "zstd",
        origin: "the Debian package zstd",
        version: &["{create}", "--version"],
        help: &["-H"],
        reads_tree: false,
        largest_old: None,
        configs: &[
            Config { name: "patch-from-3", needs: Some("--patch-from"), create: ZSTD_3, apply: ZSTD_APPLY },
            Config { name: "patch-from-9", needs: Some("--patch-from"), create: ZSTD_9, apply: ZSTD_APPLY },
            Config { name: "patch-from-19", needs: Some("--patch-from"), create: ZSTD_19, apply: ZSTD_APPLY },
        ],
    },
    // Its window over the old file must hold all of it, or what has moved far is not found.
    Tool {
        name: "xdelta3",
        create: "xdelta3",
        apply: "xdelta3",
        origin: "the Debian package xdelta3",
        version: &["{create}", "-V"],
        help: &["-h"],
        reads_tree: false,
        largest_old: None,
        configs: &[Config {
            name: "9-lzma",
            needs: None,
            create: &[
                "-e", "-q", "-f", "-9", "-S", "lzma", "-B", "{window}", "-s", "old.tar", "new.tar", "delta",
            ],
            apply: &["-d", "-q", "-f", "-B", "{window}", "-s", "old.tar", "delta", "out.tar"],
        }],
    },
    // It has no option for its version. Its memory is 17 times the old file.
    Tool {
        name: "bsdiff",
        create: "bsdiff",
        apply: "bspatch",
        origin: "the Debian package bsdiff",
        version: &["dpkg-query", "-W", "-f=${Version}", "bsdiff"],
        help: &["-h"],
        reads_tree: false,
        largest_old: Some(100_000_000),
        configs: &[Config {
            name: "default",
            needs: None,
            create: &["old.tar", "new.tar", "delta"],
            apply: &["old.tar", "out.tar", "delta"],
        }],
    },
];

const ZSTD_3: &[&str] =
    &["-q", "-f", "-3", "--long={window_log}", "--patch-from=old.tar", "new.tar", "-o", "delta"];
const ZSTD_9: &[&str] =
    &["-q", "-f", "-9", "--long={window_log}", "--patch-from=old.tar", "new.tar", "-o", "delta"];
const ZSTD_19: &[&str] =
    &["-q", "-f", "-19", "--long={window_log}", "--patch-from=old.tar", "new.tar", "-o", "delta"];
const ZSTD_APPLY: &[&str] =
    &["-q", "-f", "-d", "--long={window_log}", "--patch-from=old.tar", "delta", "-o", "out.tar"];

const HDIFF: &str = "
import hdiffpatch
old, new = (open(name, 'rb').read() for name in ('old.tar', 'new.tar'))
delta = hdiffpatch.diff(old, new, hdiffpatch.ZStdConfig(level=20), validate=False)
open('delta', 'wb').write(delta)
";

const HPATCH: &str = "
import hdiffpatch
old, delta = (open(name, 'rb').read() for name in ('old.tar', 'delta'))
open('out.tar', 'wb').write(hdiffpatch.apply(old, delta))
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_use_the_names_of_the_folder() {
        let python = |arguments: &[&str]| arguments.first() == Some(&"-c");
        for tool in PEERS.iter().chain([&CORACLE]) {
            for config in tool.configs {
                let create = config.create.join(" ");
                for name in ["old.tar", "new.tar", "delta"] {
                    assert!(create.contains(name), "{}/{}: {create}", tool.name, config.name);
                }
                let tree = tool.reads_tree && config.apply != NATIVE_APPLY;
                let source = if tree { "tree" } else { "old.tar" };
                let apply = config.apply.join(" ");
                for name in [source, "delta", "out.tar"] {
                    assert!(apply.contains(name), "{}/{}: {apply}", tool.name, config.name);
                }
                assert!(!apply.contains("new.tar"), "{}/{} reads the result", tool.name, config.name);
                assert_eq!(python(config.create), python(config.apply));
            }
        }
    }
}
