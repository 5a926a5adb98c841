//! Numbers of items, transforms and views (`docs/formats/native-delta.md`, section 6).

/// Bytes of a tar block.
pub(crate) const BLOCK: u64 = 512;
/// Classes of literals (section 6.4).
pub(crate) const CLASSES: usize = 3;
/// Class of text.
pub(crate) const TEXT: u64 = 0;
/// Class of anything else.
pub(crate) const BINARY: u64 = 1;
/// Class of what is compressed already.
pub(crate) const DENSE: u64 = 2;

/// Item: a header, section 6.2.
pub(crate) const HEADER: u64 = 0;
/// Item: all of an old file, section 6.3.
pub(crate) const WHOLE: u64 = 1;
/// Item: new bytes, section 6.4.
pub(crate) const PART: u64 = 2;
/// Item: zeros, section 6.7.
pub(crate) const ZEROS: u64 = 3;

/// Transform: none.
pub(crate) const PLAIN: u64 = 0;
/// Transform `packed/1`, section 8.
pub(crate) const PACKED: u64 = 1;
/// Transform `exec-x86_64/1`, section 9.
pub(crate) const EXEC_X86_64: u64 = 2;
/// Transform `exec-aarch64/1`, section 9.
pub(crate) const EXEC_AARCH64: u64 = 3;
/// Transform `exec-x86_64-kernel/1`, section 9.
pub(crate) const EXEC_X86_64_KERNEL: u64 = 4;

/// View: all of an old file, section 6.5.
pub(crate) const VIEW_WHOLE: u64 = 0;
/// View: a range of an old file.
pub(crate) const VIEW_RANGE: u64 = 1;
/// View: a deflate stream of an old file, inflated.
pub(crate) const VIEW_INFLATED: u64 = 2;
/// View: an xz stream of an old file, expanded.
pub(crate) const VIEW_XZ: u64 = 4;
/// View: a zstd frame of an old file, expanded.
pub(crate) const VIEW_ZSTD: u64 = 5;
/// View: the chunks with the data of an image in an old file, expanded.
pub(crate) const VIEW_PNG: u64 = 6;
/// View: a legacy LZ4 frame of an old file, expanded.
pub(crate) const VIEW_LZ4: u64 = 7;
/// Added to the number of a view of a whole file or an expanded stream: it is a program (section 9.1).
pub(crate) const VIEW_PROGRAM: u64 = 8;

/// Most views of one part.
pub(crate) const MAX_VIEWS: u64 = 1 << 16;
/// Most rebuilt streams of one part.
pub(crate) const MAX_STREAMS: u64 = 1 << 16;
