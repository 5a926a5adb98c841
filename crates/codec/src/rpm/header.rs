//! The header of a package (`docs/formats/rpm-databases.md`, section 1).

use super::{Error, number, part};

/// Bytes of an entry of the index.
const ENTRY: u64 = 16;
/// Entries at most; rpm's own bound.
const MAX_ENTRIES: u64 = 0xffff;

/// Tags (section 1.2).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;

/// Types.
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;

/// A package, as far as it tells it from others. Texts are what stands there, whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Epoch, if there is one.
    pub epoch: Option<u32>,
    /// Version.
    pub version: String,
    /// Release.
    pub release: String,
    /// Architecture; keys of who signs have none.
    pub architecture: Option<String>,
}

impl Package {
    /// `[EPOCH:]VERSION-RELEASE`, as rpm writes it.
    pub fn evr(&self) -> String {
        let epoch = self.epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
        format!("{epoch}{}-{}", self.version, self.release)
    }

    /// Reads a header as it is stored in a database: without a magic. `None` if it has no name.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Package>, Error> {
        const WHAT: &str = "a header";
        let (entries, data) =
            (u64::from(number(bytes, 0, true, WHAT)?), u64::from(number(bytes, 4, true, WHAT)?));
        if entries == 0 || entries > MAX_ENTRIES {
            return Err(Error::Invalid { what: WHAT, at: 0, reason: "a number of entries that none has" });
        }
        let start = 8 + entries * ENTRY;
        let data = part(bytes, start, data, WHAT)?;
        let mut package = Package {
            name: String::new(),
            epoch: None,
            version: String::new(),
            release: String::new(),
            architecture: None,
        };
        let mut seen = Vec::new();
        for number_of in 0..entries {
            let at = 8 + number_of * ENTRY;
            let field = |n: u64| number(bytes, at + 4 * n, true, WHAT);
            let (tag, kind, offset, count) = (field(0)?, field(1)?, u64::from(field(2)?), field(3)?);
            if !matches!(tag, NAME | VERSION | RELEASE | EPOCH | ARCHITECTURE) {
                continue;
            }
            let bad = |reason| Error::Invalid { what: "a tag", at, reason };
            if count == 0 {
                return Err(bad("it has no value"));
            }
            if seen.contains(&tag) {
                return Err(bad("it stands there twice"));
            }
            seen.push(tag);
            if tag == EPOCH {
                if kind != INT32 {
                    return Err(bad("an epoch that is no number of 32 bits"));
                }
                package.epoch = Some(number(data, offset, true, "the value of a tag")?);
                continue;
            }
            if !matches!(kind, STRING | STRING_ARRAY | I18N_STRING) {
                return Err(bad("a text that is none"));
            }
            let text = usize::try_from(offset).ok().and_then(|offset| data.get(offset..));
            let text = text.ok_or(Error::Short { what: "the value of a tag" })?;
            let end = text.iter().position(|byte| *byte == 0).ok_or(bad("a text without its end"))?;
            let text = String::from_utf8_lossy(&text[..end]).into_owned();
            match tag {
                NAME => package.name = text,
                VERSION => package.version = text,
                RELEASE => package.release = text,
                _ => package.architecture = Some(text),
            }
        }
        Ok((!package.name.is_empty()).then_some(package))
    }
}
