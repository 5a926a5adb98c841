//! Streams of `.xz` files, made by liblzma (`docs/formats/native-delta.md`, section 8.5).

use liblzma::stream::{Action, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};

use super::xz_container::{CHECKS, FILTERS, Layout, Shape, Writer, parse, properties};
use super::{TOO_LONG, TOO_SHORT};
use crate::native::Error;
use crate::native::numbers::{Fields, put};

/// The name of this encoder (section 8.7); `Cargo.toml` pins the crate that holds this version of liblzma.
pub const NAME: &str = "liblzma-5.8.4";
/// Number of the family (section 8.2).
pub(super) const FAMILY: u64 = 2;
/// What extreme presets have in their number (section 8.2).
const EXTREME: u64 = 16;
/// Presets that differ by more than their dictionary.
const MAX_PRESET: u64 = 6;
/// Smallest and largest dictionary, log2 of bytes.
const DICTIONARY: (u64, u64) = (12, 26);
/// Smallest block, in bytes of content.
const MIN_BLOCK: u64 = 4096;
/// Longest block header in units of four bytes.
const MAX_HEADER: u64 = 255;
/// Up to here the dictionary of the encoder is the one that the header declares, log2 of bytes.
const SMALL_DICTIONARY: u64 = 20;
/// lc 3, lp 0, pb 2: what is usual.
const USUAL_PROPERTIES: u8 = 93;

/// How a stream is made; the fields are those of section 8.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// 0 to 6.
    pub preset: u8,
    /// Whether the preset is the extreme one.
    pub extreme: bool,
    /// log2 of the dictionary of the encoder.
    pub dictionary: u8,
    /// lc, lp and pb.
    pub properties: u8,
    /// Id of a BCJ filter, or 0.
    pub filter: u8,
    /// Dictionary that the header declares.
    pub declared: u8,
    /// Check of the content.
    pub check: u8,
    /// Bytes of content in a block, or 0 for all.
    pub block: u64,
    /// Length of block headers with sizes, or 0 for headers without.
    pub header: u8,
}

impl Settings {
    pub(super) fn read(value: u64, fields: &mut Fields<'_>) -> Result<Self, Error> {
        let unknown = |what, value| Err(Error::Unknown { what, value });
        let preset = value % EXTREME;
        if value >= 2 * EXTREME || preset > MAX_PRESET {
            return unknown("xz encoder", value);
        }
        let dictionary = fields.at_most(DICTIONARY.1, "dictionary of an xz encoder")?;
        let properties = fields.number()?;
        let [filter, declared, check] =
            [fields.number()?, fields.at_most(40, "dictionary")?, fields.number()?];
        let block = fields.number()?;
        let header = fields.at_most(MAX_HEADER, "length of a block header")?;
        if dictionary < DICTIONARY.0 {
            return unknown("dictionary of an xz encoder", dictionary);
        }
        if properties >= 225 || properties % 9 + properties / 9 % 5 > 4 {
            return unknown("properties of LZMA", properties);
        }
        if filter != 0 && !FILTERS.iter().any(|&f| u64::from(f) == filter) {
            return unknown("filter of xz", filter);
        }
        if !CHECKS.iter().any(|&c| u64::from(c) == check) {
            return unknown("check of xz", check);
        }
        if block != 0 && block < MIN_BLOCK {
            return unknown("block of xz", block);
        }
        Ok(Settings {
            preset: preset as u8,
            extreme: value >= EXTREME,
            dictionary: dictionary as u8,
            properties: properties as u8,
            filter: filter as u8,
            declared: declared as u8,
            check: check as u8,
            block,
            header: header as u8,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let extreme = if self.extreme { EXTREME } else { 0 };
        put(out, FAMILY << 8 | extreme | u64::from(self.preset));
        let bytes = [self.dictionary, self.properties, self.filter, self.declared, self.check];
        bytes.into_iter().for_each(|b| put(out, b.into()));
        put(out, self.block);
        put(out, self.header.into());
    }

    pub(super) fn memory(&self) -> u64 {
        (12 << self.dictionary) + (2 << 20)
    }

    fn shape(&self) -> Shape {
        let Settings { check, filter, declared: dictionary, header, .. } = *self;
        Shape { check, filter, dictionary, header }
    }

    fn filters(&self) -> Option<Filters> {
        let preset = u32::from(self.preset) | if self.extreme { PRESET_EXTREME } else { 0 };
        let mut options = LzmaOptions::new_preset(preset).ok()?;
        let p = u32::from(self.properties);
        options.dict_size(1 << self.dictionary).literal_context_bits(p % 9);
        options.literal_position_bits(p / 9 % 5).position_bits(p / 45);
        filters(self.filter, &options)
    }

    /// The stream of `content`, if it has at most `most` bytes.
    pub fn encode(&self, content: &[u8], most: usize) -> Option<Vec<u8>> {
        self.encode_while(content, most, |_| true)
    }

    /// Whether this is how `stream` is made of `content`. Stops at the first difference.
    pub(super) fn makes(&self, content: &[u8], stream: &[u8]) -> bool {
        let agrees = |made: &[u8]| stream.starts_with(made);
        self.encode_while(content, stream.len(), agrees).is_some_and(|made| made == stream)
    }

    fn encode_while(&self, content: &[u8], most: usize, agrees: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        if content.is_empty() {
            return None;
        }
        let block = if self.block == 0 { content.len() } else { usize::try_from(self.block).ok()? };
        let mut writer = Writer::new(self.shape());
        for content in content.chunks(block) {
            let room = most.checked_sub(writer.bytes().len())?;
            let data = raw(self.filters()?, content, room)?;
            writer.block(&data, content)?;
            if !agrees(writer.bytes()) {
                return None;
            }
        }
        let out = writer.finish();
        (out.len() <= most).then_some(out)
    }
}

/// LZMA2 with `options`, behind a BCJ filter if `filter` is not 0.
fn filters(filter: u8, options: &LzmaOptions) -> Option<Filters> {
    let mut filters = Filters::new();
    match filter {
        0 => {}
        4 => drop(filters.x86()),
        5 => drop(filters.powerpc()),
        7 => drop(filters.arm()),
        8 => drop(filters.arm_thumb()),
        9 => drop(filters.sparc()),
        10 => drop(filters.arm64()),
        11 => drop(filters.riscv()),
        _ => return None,
    }
    filters.lzma2(options);
    Some(filters)
}

/// What the raw encoder makes of `content`, at most `most` bytes.
fn raw(filters: Filters, content: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut stream = Stream::new_raw_encoder(&filters).ok()?;
    run(&mut stream, content, most)
}

fn run(stream: &mut Stream, input: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let rest = &input[stream.total_in() as usize..];
        // One byte more than allowed tells what is too long.
        let room = (out.len() / 2).clamp(1 << 12, 1 << 22).min(most + 1 - out.len());
        out.reserve_exact(room);
        let before = (stream.total_in(), stream.total_out());
        let status = stream.process_vec(rest, &mut out, Action::Finish).ok()?;
        if out.len() > most {
            return None;
        }
        match status {
            Status::StreamEnd => return Some(out),
            _ if before == (stream.total_in(), stream.total_out()) => return None,
            _ => {}
        }
    }
}

/// The content of a stream that is all of `bytes`, if there are at most `most` bytes of it.
pub(crate) fn decode(bytes: &[u8], most: usize) -> Result<Vec<u8>, &'static str> {
    const BAD: &str = "it is no xz stream";
    let layout = parse(bytes).filter(|l| l.len == bytes.len()).ok_or(BAD)?;
    let mut out: Vec<u8> = Vec::new();
    for block in &layout.blocks {
        let content =
            usize::try_from(block.content).ok().filter(|&n| n <= most - out.len()).ok_or(TOO_LONG)?;
        let mut options = LzmaOptions::new();
        // What is longer than the content serves nothing.
        let size = content.next_power_of_two().clamp(1 << DICTIONARY.0, 1 << 30);
        options.dict_size(size as u32);
        let filters = filters(layout.shape.filter, &options).ok_or(BAD)?;
        let mut stream = Stream::new_raw_decoder(&filters).map_err(|_| BAD)?;
        let made = run(&mut stream, &bytes[block.data.clone()], content).ok_or(BAD)?;
        if made.len() != content {
            return Err(TOO_SHORT);
        }
        if out.is_empty() {
            out = made;
        } else {
            out.extend_from_slice(&made);
        }
    }
    Ok(out)
}

/// Ways in which `stream` may have been made, the likeliest first.
pub(super) fn candidates(stream: &[u8], content: u64) -> Option<Vec<Settings>> {
    let Layout { shape, blocks, .. } = parse(stream).filter(|l| l.len == stream.len())?;
    let first = blocks.first()?;
    let properties = properties(&stream[first.data.clone()]).unwrap_or(USUAL_PROPERTIES);
    let block = match &blocks[..] {
        [_] => 0,
        [first, ..] => first.content,
        [] => return None,
    };
    if block != 0 && block < MIN_BLOCK {
        return None;
    }
    // Presets by the dictionary that they come with; most programs choose 6 with another dictionary.
    let named: &[(u8, bool)] = match shape.dictionary {
        12 => &[(0, false)],
        16 => &[(1, false)],
        18 => &[(2, false)],
        20 => &[(4, false), (3, false), (5, true)],
        22 => &[(5, false), (5, true)],
        _ => &[],
    };
    let usual = [(6, false), (6, true)];
    let order = if shape.dictionary == 12 { [named, &usual] } else { [&usual, named] };
    let presets = order.concat();
    // 4 KiB, 6 KiB, 8 KiB, 12 KiB and so on.
    let declared = u64::from(shape.dictionary / 2) + 12 + u64::from(shape.dictionary % 2);
    let full = declared.clamp(DICTIONARY.0, DICTIONARY.1);
    let longest = if block == 0 { content } else { block };
    let small = u64::from(longest.max(1).next_power_of_two().ilog2()).clamp(DICTIONARY.0, full);
    let mut out = Vec::new();
    // A smaller dictionary makes the same bytes nearly always, and takes less; up to 1 MiB there is little to gain.
    let first = if full <= SMALL_DICTIONARY { full } else { small };
    for dictionary in [first, full] {
        for &(preset, extreme) in &presets {
            let settings = Settings {
                preset,
                extreme,
                dictionary: dictionary as u8,
                properties,
                filter: shape.filter,
                declared: shape.dictionary,
                check: shape.check,
                block,
                header: shape.header,
            };
            if !out.contains(&settings) {
                out.push(settings);
            }
        }
    }
    Some(out)
}
