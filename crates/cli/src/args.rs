//! The command line.

pub mod audit;
mod balena;
pub mod convert;
mod subset;
mod trust;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Platform, Reference};

use crate::size;

pub use balena::{BalenaCreate, BalenaPull};
pub use subset::{Dedupe, SubsetOptions};
pub use trust::TrustOptions;

/// Container image updates in as few bytes as possible, bit-exact and verified.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a delta between archives.
    ///
    /// Reads the OLD archives in the order in which they would be extracted and writes to DELTA what it takes to
    /// turn the extracted tree into the archive NEW, bit for bit. Archives may be compressed with gzip, zstd, bzip2 or
    /// xz. The delta is applied once before it is published, so a delta that exists is a delta that works. `-` stands
    /// for standard input or output.
    Diff(Diff),
    /// Apply a delta.
    ///
    /// Rebuilds the new archive from DELTA and SOURCE: one directory with the extracted old tree, or the old archives
    /// in order. Nothing in a delta tells whether the source was the right one: give --expect with the digest of the
    /// uncompressed archive (a layer's diff_id) wherever you know it. OUT appears only when it is complete and as
    /// expected; `-` streams to standard output.
    Patch(Patch),
    /// Show what a delta, an archive or an image holds.
    ///
    /// X is a file or the name of an image, as for `copy`; a name that begins with a transport or, if there is no such
    /// file, with a host is one of an image.
    Inspect(Inspect),
    /// Show which files of the new archive cost how many bytes of a delta.
    ///
    /// OLD is one directory or the old archives in order; or OLD and NEW are images, and DELTA is a delta artifact (or NEW
    /// again, for the delta that lies beside it). The cost of a file is an estimate: what its operations add
    /// to a compressed stream, scaled so that all files together give the exact size of the delta.
    Explain(Explain),
    /// Copy an image, or an index with all its images.
    ///
    /// Images are named as in containers-transports(5): docker://NAME, or just NAME, in a registry; oci:PATH or
    /// oci:PATH:NAME; oci-archive:PATH; docker-archive:PATH; dir:PATH; docker-daemon:NAME; containers-storage:NAME; and
    /// rootfs:PATH for a tree of files. Manifests are copied byte for byte, so digests are kept; where the destination
    /// cannot keep them, that is said. What was interrupted goes on when it is run again.
    Copy(Copy),
    /// Copy an image with its layers compressed otherwise.
    ///
    /// The tars in the layers stay as they are, so the config and with it the image's ID stay, too; manifests are new. Only
    /// eStargz changes the tars, since its table of contents is a file in them. Layers of zstd:chunked and eStargz are
    /// pulled in parts by coracle pull and by clients that know them; others see plain zstd or gzip. The same image and
    /// options give the same bytes.
    Convert(convert::Convert),
    /// List the files of an image, without unpacking it.
    ///
    /// Of chunked layers (zstd:chunked, eStargz) only the table of contents is fetched; other layers are fetched whole, and
    /// that is said. What upper layers remove or replace is not shown.
    Ls(audit::Ls),
    /// Write a file of an image to standard output, without unpacking it.
    ///
    /// Of chunked layers only the table of contents and the file's own bytes are fetched, and compared with its digest.
    Cat(audit::Cat),
    /// Show how two images differ: files added, removed and changed, and packages of dpkg and apk.
    ///
    /// Contents are compared by digest; times do not count. M is a changed content, m a changed owner or mode.
    Compare(audit::Compare),
    /// Pull an image into the store, with deltas where there are any.
    ///
    /// Layers that are in the store stay. For the others, deltas that lead from an image in the store to this one are
    /// looked for in its registry, and the cheapest way to each layer is taken; what no delta makes, or what a delta
    /// fails to make, is fetched whole. Manifest and config are kept byte for byte and each layer is compared with the
    /// config before the name leads to the image. What was interrupted goes on when it is run again. See docs/pull.md.
    Pull(Pull),
    /// Pull all tracked images again: those that were pulled by a tag.
    Update(Update),
    /// Look after the store: what is in it, what it takes, what can go, what is damaged.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Make, publish, list, prune and apply deltas between images.
    ///
    /// A delta artifact holds what turns one image into another and lies in the registry beside the image that it leads
    /// to. Registries and clients need not know of it. See docs/formats/delta-artifacts.md.
    #[command(subcommand)]
    Delta(DeltaCommand),
    /// Print the completions for a shell.
    ///
    /// They go to standard output, for instance: coracle completions bash > /etc/bash_completion.d/coracle
    Completions(Completions),
    /// Write the manual pages, one for each command, into a folder.
    ManPages(ManPages),
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManPages {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum DeltaCommand {
    /// Make deltas from old images to a new one.
    ///
    /// The layers of both are fetched once, each changed layer is expressed with the files of all old layers, and each
    /// delta is applied once before it is published. Layers that do not get smaller go into the artifact as they are.
    /// With indexes there is a delta for each platform that both sides have.
    Create(DeltaCreate),
    /// Push deltas from a layout or an archive beside the image that they lead to.
    Push(DeltaPush),
    /// List the deltas that lead to an image.
    List(DeltaList),
    /// Remove deltas that nobody needs any more.
    ///
    /// Only what says of itself that it is a delta to IMAGE is deleted. With both rules, a delta has to fail both.
    Prune(DeltaPrune),
    /// Apply a delta: from the source image, or its files, to the target image.
    ///
    /// DELTA is a delta artifact, a list of them, or the target image itself, whose deltas are then looked for beside
    /// it. Each layer is compared with the config before anything becomes visible. Where a destination keeps layers
    /// compressed, those that were made anew have another digest, and so has the manifest; the config, and with it the
    /// image ID, is always the original one.
    Apply(DeltaApply),
}

impl DeltaCommand {
    /// Options of all commands.
    pub fn shared(&self) -> &Shared {
        match self {
            DeltaCommand::Create(a) => &a.shared,
            DeltaCommand::Push(a) => &a.shared,
            DeltaCommand::List(a) => &a.shared,
            DeltaCommand::Prune(a) => &a.shared,
            DeltaCommand::Apply(a) => &a.shared,
        }
    }
}

/// How a delta artifact is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TarDiffDialect {
    /// One artifact for a pair of images, which bootc and its relatives read
    OciDelta,
    /// `_deltaindex`, which flatpak reads
    Flatpak,
    /// `_deltaindex` in the variant of the patches to skopeo
    Skopeo,
    /// An image of librsync deltas, which balenaEngine pulls. Alone, without a codec
    Balena,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LayerFormat {
    /// gzip
    Gzip,
    /// zstd
    Zstd,
    /// Not at all
    None,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "coracle delta create [OPTIONS] <OLD>... <NEW>\n       coracle delta create [OPTIONS] --from-last <N> <IMAGE>"
)]
#[command(group(clap::ArgGroup::new("to").required(true).args(["output", "push", "dry_run"])))]
pub struct DeltaCreate {
    /// Old images, and the new one
    #[arg(required = true, num_args = 1.., value_names = ["OLD", "NEW"])]
    pub images: Vec<String>,
    /// Start from so many images before IMAGE: by version if its tag is one, else by when they were made
    #[arg(long, value_name = "N", conflicts_with = "from_tags")]
    pub from_last: Option<NonZeroUsize>,
    /// Start from all images in the repository of IMAGE whose tag matches a pattern with * and ?
    #[arg(long, value_name = "GLOB")]
    pub from_tags: Option<String>,
    /// Write an archive (a path), or a layout (oci:DIR)
    #[arg(long, short, value_name = "DST")]
    pub output: Option<String>,
    /// Push beside the new image, which has to be in a registry
    #[arg(long)]
    pub push: bool,
    /// Give the first delta a tag as well
    #[arg(long, value_name = "REF", requires = "push")]
    pub tag: Option<String>,
    /// Put the new image itself into the output, too: whoever has none of the old images takes its layers from there
    #[arg(long, requires = "output")]
    pub with_image: bool,
    /// Only estimate sizes: makes the deltas with the least effort, and keeps none
    #[arg(long)]
    pub dry_run: bool,
    /// Formats of the deltas [default: tardiff; with --push native,tardiff]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub codec: Vec<Codec>,
    /// Layouts of artifacts with tar-diffs; or balena
    #[arg(long, value_enum, value_delimiter = ',', default_value = "oci-delta")]
    pub dialect: Vec<TarDiffDialect>,
    /// Of indexes only the images for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Version of the tar-diff format
    #[arg(long, value_enum, default_value = "v1")]
    pub format: Format,
    /// Work to put into smaller deltas: 1 is the least, 9 the most
    #[arg(long, value_name = "1..9", value_parser = clap::value_parser!(u8).range(1..=9), default_value_t = 5)]
    pub effort: u8,
    /// Memory to aim at for one layer. Deltas depend on it
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1GiB")]
    pub memory: u64,
    /// Threads [default: all cores]. Deltas do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Use old files that are not world-readable for tar-diffs as well
    #[arg(long)]
    pub any_mode: bool,
    /// Make and push deltas that are published already
    #[arg(long, requires = "push")]
    pub again: bool,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub balena: BalenaCreate,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct DeltaPush {
    /// Archive (a path) or layout (oci:DIR) with delta artifacts
    #[arg(value_name = "DELTA")]
    pub delta: String,
    /// The repository of the image that they lead to; with a tag, the first delta gets it as well
    #[arg(value_name = "REPOSITORY")]
    pub to: String,
    /// Blobs pushed at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    pub jobs: NonZeroUsize,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct DeltaList {
    /// The image that they lead to
    pub image: String,
    /// Of an index only the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Add what publishers that were cut off have left out of the lists
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("rule").required(true).multiple(true).args(["keep_sources", "older_than"])))]
pub struct DeltaPrune {
    /// The image that they lead to, in a registry
    pub image: String,
    /// Keep those from the latest N sources
    #[arg(long, value_name = "N")]
    pub keep_sources: Option<usize>,
    /// Keep those whose source image was made within this time: 12h, 30d, 8w
    #[arg(long, value_name = "TIME", value_parser = size::parse_time)]
    pub older_than: Option<std::time::Duration>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Of an index only the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("base").required(true).args(["source", "ostree_repo"])))]
pub struct DeltaApply {
    /// Archive (a path, or - for standard input), layout, or name in a registry
    #[arg(value_name = "DELTA")]
    pub delta: String,
    /// What is there: an image, or a directory with its files (rootfs:DIR, or a path)
    #[arg(long, value_name = "SRC")]
    pub source: Option<String>,
    /// What is there: the files of an image in a repository of ostree, as bootc keeps them
    #[arg(long, value_name = "REPO")]
    pub ostree_repo: Option<PathBuf>,
    /// The ref in that repository [default: the one made from the image that the delta starts from]
    #[arg(long, value_name = "REF", requires = "ostree_repo")]
    pub ostree_ref: Option<String>,
    /// Where the target goes, and under which name
    #[arg(long, value_name = "DST")]
    pub to: String,
    /// How layers that are made anew are compressed [default: none; gzip for a registry]
    #[arg(long, value_enum)]
    pub layer_compression: Option<LayerFormat>,
    /// Leave layers away that source and target have in common, where the source has files and no layers. Only whoever
    /// has them can use the image
    #[arg(long)]
    pub partial: bool,
    /// Of a list the delta for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Largest memory that a delta may take, besides what the program needs anyway
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1088MiB")]
    pub memory: u64,
    /// Layers made at the same time [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

impl Command {
    /// Whether messages are JSON.
    pub fn json(&self) -> bool {
        match self {
            Command::Diff(a) => a.shared.json,
            Command::Patch(a) => a.shared.json,
            Command::Inspect(a) => a.shared.json,
            Command::Explain(a) => a.shared.json,
            Command::Copy(a) => a.shared.json,
            Command::Ls(a) => a.auditing.shared.json,
            Command::Cat(a) => a.auditing.shared.json,
            Command::Compare(a) => a.auditing.shared.json,
            Command::Convert(a) => a.shared.json,
            Command::Delta(a) => a.shared().json,
            Command::Pull(a) => a.pulling.shared.json,
            Command::Update(a) => a.pulling.shared.json,
            Command::Store(a) => a.shared().json,
            Command::Completions(_) | Command::ManPages(_) => false,
        }
    }
}

/// Options of all commands.
#[derive(Debug, Args)]
pub struct Shared {
    /// Write one JSON object instead of text (docs/cli/json.md); to standard error if the output goes to standard
    /// output
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary
    #[arg(long, short)]
    pub quiet: bool,
    /// Largest uncompressed archive to read or to make
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "64GiB")]
    pub max_size: u64,
    /// Directory for unnamed temporary files [default: $TMPDIR or /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,
}

/// Format of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// tar-diff: other programs read it too
    Tardiff,
    /// Coracle's own: much smaller, needs the old archives unless made for a tree
    Native,
}

/// What a native delta will be applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The old archives: their headers predict the new ones
    Archives,
    /// The extracted tree: a larger delta that carries all headers
    Tree,
}

/// Version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// tar-diff 1: every reader understands it
    V1,
    /// tar-diff 2: may use zstd frames with an old file as dictionary where that is smaller
    V2,
}

/// Whether whiteouts in old archives remove files of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Whiteouts {
    /// On with several old archives, off with one
    Auto,
    /// On
    On,
    /// Off
    Off,
}

impl Whiteouts {
    /// Whether they apply to so many old archives.
    pub fn apply(self, archives: usize) -> bool {
        match self {
            Whiteouts::Auto => archives > 1,
            Whiteouts::On => true,
            Whiteouts::Off => false,
        }
    }
}

#[derive(Debug, Args)]
#[command(override_usage = "coracle diff [OPTIONS] <OLD>... <NEW> <DELTA>")]
pub struct Diff {
    /// Old archives in order of extraction, the new archive, the delta to write
    #[arg(required = true, num_args = 3.., value_names = ["OLD", "NEW", "DELTA"])]
    pub paths: Vec<PathBuf>,
    /// Format of the delta
    #[arg(long, value_enum, default_value = "tardiff")]
    pub codec: Codec,
    /// What a native delta will be applied to
    #[arg(long = "for", value_enum, default_value = "archives")]
    pub target: Target,
    /// Version of the tar-diff format
    #[arg(long, value_enum, default_value = "v1")]
    pub format: Format,
    /// Work to put into a smaller delta: 1 is the least, 9 the most
    #[arg(long, value_name = "1..9", value_parser = clap::value_parser!(u8).range(1..=9), default_value_t = 5)]
    pub effort: u8,
    /// Window of a tar-diff's stream: a power of two up to 128MiB. Applying takes the window and 48 MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse_window, default_value = "8MiB")]
    pub window: u32,
    /// Memory to aim at. The delta depends on it
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1GiB")]
    pub memory: u64,
    /// Threads for matching [default: all cores]. The delta does not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Publish the delta without applying it first
    #[arg(long)]
    pub no_verify: bool,
    /// Honour whiteouts (.wh.NAME, .wh..wh..opq) in old archives
    #[arg(long, value_enum, default_value = "auto")]
    pub whiteouts: Whiteouts,
    /// Use old files that are not world-readable as well
    #[arg(long)]
    pub any_mode: bool,
    /// Use only old files below this path (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub source_prefix: Vec<PathBuf>,
    /// Use no old files below this path (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub ignore_source_prefix: Vec<PathBuf>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
#[command(override_usage = "coracle patch [OPTIONS] <DELTA> <SOURCE>... <OUT>")]
pub struct Patch {
    /// The delta, one directory or old archives in order, the archive to write
    #[arg(required = true, num_args = 3.., value_names = ["DELTA", "SOURCE", "OUT"])]
    pub paths: Vec<PathBuf>,
    /// Digest that the result must have; nothing is published otherwise
    #[arg(long, value_name = "sha256:HEX")]
    pub expect: Option<Digest>,
    /// Memory for windows and dictionaries; a delta that needs more is refused
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1088MiB")]
    pub memory: u64,
    /// Threads: with more than one, hashing goes on beside everything else [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// A delta, an archive, or the name of an image
    #[arg(value_name = "X")]
    pub path: PathBuf,
    /// Show all source files, not only the ones used most
    #[arg(long)]
    pub all: bool,
    /// Of an index show the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Of an image or a delta show the signatures, and whether they hold
    #[arg(long)]
    pub verify: bool,
    /// With --verify: a public key (PEM) instead of those in the policy (may be repeated)
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub key: Vec<PathBuf>,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct Copy {
    /// The image to copy
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Where to, and under which name
    #[arg(value_name = "DST")]
    pub destination: String,
    /// Of an index only the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Blobs copied at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    pub jobs: NonZeroUsize,
    /// Let files of a tree be the very files of the store where they cannot share blocks: a change in place damages it
    #[arg(long)]
    pub hardlinks: bool,
    #[command(flatten)]
    pub subset: SubsetOptions,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct Pull {
    /// The image, in a registry unless it says otherwise
    pub image: String,
    /// Read it from what `delta create -o` has written, an archive (a path) or a layout (oci:DIR), and ask no registry
    #[arg(long, value_name = "BUNDLE")]
    pub from_bundle: Option<String>,
    /// Put it here instead of the store: any destination of coracle copy. What is there under this name is a source
    #[arg(long, value_name = "DST")]
    pub to: Option<String>,
    /// Keep it in the store as well
    #[arg(long, requires = "to")]
    pub keep: bool,
    /// Let files of a tree be the very files of the store where they cannot share blocks: a change in place damages it
    #[arg(long, requires = "to")]
    pub hardlinks: bool,
    /// Where layers may be besides the store, and images that deltas start from (may be repeated)
    #[arg(long, value_name = "SRC")]
    pub source: Vec<String>,
    #[command(flatten)]
    pub dedupe: Dedupe,
    #[command(flatten)]
    pub subset: SubsetOptions,
    #[command(flatten)]
    pub balena: BalenaPull,
    /// Its name in the store [default: its name in the registry]
    #[arg(long, value_name = "NAME")]
    pub name: Option<Reference>,
    /// Of an index the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Of an index the images for all platforms
    #[arg(long, conflicts_with_all = ["platform", "to", "from_bundle"])]
    pub all_platforms: bool,
    /// Only show what would be fetched
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub pulling: Pulling,
}

#[derive(Debug, Args)]
pub struct Update {
    /// Only show what would be fetched
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub pulling: Pulling,
}

/// Options of pulling.
#[derive(Debug, Args)]
pub struct Pulling {
    /// Fetch all layers whole
    #[arg(long)]
    pub no_deltas: bool,
    /// Layers at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    pub jobs: NonZeroUsize,
    /// Largest memory that a delta may take, besides what the program needs anyway; one that needs more is not used
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1088MiB")]
    pub memory: u64,
    /// Threads for making layers from deltas [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// List the images in the store.
    Images(StoreImages),
    /// Remove names from the store. What only they led to stays until the next gc.
    Rm(StoreRm),
    /// Remove what no name leads to and no running command uses.
    Gc(StoreGc),
    /// Look for damage: compare everything in the store with its digest.
    Fsck(StoreFsck),
    /// Show how much room images take.
    Du(StoreDu),
}

impl StoreCommand {
    /// Options of all commands.
    pub fn shared(&self) -> &Shared {
        match self {
            StoreCommand::Images(a) => &a.shared,
            StoreCommand::Rm(a) => &a.shared,
            StoreCommand::Gc(a) => &a.shared,
            StoreCommand::Fsck(a) => &a.shared,
            StoreCommand::Du(a) => &a.shared,
        }
    }
}

#[derive(Debug, Args)]
pub struct StoreImages {
    #[command(flatten)]
    pub place: StorePlace,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct StoreRm {
    /// Names of images
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<Reference>,
    #[command(flatten)]
    pub place: StorePlace,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct StoreGc {
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Keep what interrupted pulls have fetched within this time: 12h, 30d, 8w, 0h
    #[arg(long, value_name = "TIME", value_parser = size::parse_time, default_value = "7d")]
    pub partial_age: std::time::Duration,
    /// Go on where a name leads to a damaged manifest, which may lose what it led to
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub place: StorePlace,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct StoreFsck {
    /// Fetch what is damaged again, from where the images came
    #[arg(long)]
    pub repair: bool,
    /// Put each layer together and compare it as well
    #[arg(long)]
    pub deep: bool,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct StoreDu {
    #[command(flatten)]
    pub place: StorePlace,
    #[command(flatten)]
    pub shared: Shared,
}

/// Where the store is.
#[derive(Debug, Args)]
pub struct StorePlace {
    /// The store [default: $CORACLE_STORE; for root /var/lib/coracle/store; else ~/.local/share/coracle/store]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// Options of commands that may ask a registry.
#[derive(Debug, Args)]
pub struct RegistryOptions {
    #[command(flatten)]
    pub place: StorePlace,
    /// Bytes per second from and to registries, all transfers together
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub limit_rate: Option<u64>,
    /// Credentials, instead of $REGISTRY_AUTH_FILE and the usual auth.json and config.json
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Registries and mirrors, instead of the usual registries.conf and its drop-ins
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// Certificates (*.crt, *.cert, *.key) for all registries, besides those in certs.d
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// With false, registries may have any certificate, or speak plain HTTP
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub tls_verify: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "coracle explain [OPTIONS] <OLD>... <NEW> <DELTA>")]
pub struct Explain {
    /// One directory or old archives in order, the new archive, the delta between them; or three images by name
    #[arg(required = true, num_args = 3.., value_names = ["OLD", "NEW", "DELTA"])]
    pub paths: Vec<PathBuf>,
    /// How many files to show
    #[arg(long, value_name = "N", default_value = "25")]
    pub top: usize,
    /// Show all files
    #[arg(long, conflicts_with = "top")]
    pub all: bool,
    /// Of a list the delta for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}
