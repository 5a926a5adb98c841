//! Names that do not fit into a header block.

/// Bytes of a name, or of a link's target, in a header.
pub(super) const NAME: usize = 100;
/// Bytes of what stands before it in a POSIX header.
pub(super) const PREFIX: usize = 155;

/// Where a long name is cut into a prefix and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nowhere.
    Never,
    /// As far behind as can be: GNU tar, Go.
    Late,
    /// As far in front: Python.
    Early,
}

impl Cut {
    /// The prefix and the rest.
    pub(super) fn apply(self, name: &[u8]) -> Option<(&[u8], &[u8])> {
        if name.len() <= NAME || !name.is_ascii() {
            return None;
        }
        let fits =
            |at: &usize| (1..=PREFIX).contains(at) && name.len() - at - 1 <= NAME && name.len() > at + 1;
        let mut slashes = (0..name.len()).filter(|at| name[*at] == b'/').filter(fits);
        let at = match self {
            Cut::Never => None,
            Cut::Early => slashes.next(),
            Cut::Late => slashes.next_back(),
        }?;
        Some((&name[..at], &name[at + 1..]))
    }
}

/// How the member that carries PAX records is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `DIR/PaxHeaders.0/FILE` with the path made short, as Go does.
    Go,
    /// `DIR/WORD/FILE`; with `dot`, `.` for the folder of a name without any.
    Folder { word: Vec<u8>, dot: bool },
    /// Such a text and `FILE`, whatever the folder.
    Base(Vec<u8>),
    /// Always the same: Python.
    Fixed(Vec<u8>),
}

impl Scheme {
    /// All that a member which is named so may have been named by.
    pub(super) fn candidates(extended: &[u8], name: &[u8]) -> Vec<Scheme> {
        let mut out = vec![Scheme::Go];
        for dot in [true, false] {
            let folder = folder(name, dot);
            let rest = if folder.is_empty() {
                Some(extended)
            } else {
                extended.strip_prefix(folder).and_then(|rest| rest.strip_prefix(b"/"))
            };
            // Without the slash behind it, it may be cut.
            if let Some(rest) = rest
                && let Some(len) = rest.iter().position(|byte| *byte == b'/')
            {
                out.push(Scheme::Folder { word: rest[..len].to_vec(), dot });
            }
        }
        // The file may be cut.
        let full = |at: &usize| extended.len() == NAME || extended.len() - at == base(name).len();
        let mut starts =
            (0..extended.len()).filter(|at| base(name).starts_with(&extended[*at..])).filter(full);
        if let Some(at) = starts.next() {
            out.push(Scheme::Base(extended[..at].to_vec()));
        }
        out.push(Scheme::Fixed(extended.to_vec()));
        out
    }

    /// The name for the member called `name`.
    pub(super) fn apply(&self, name: &[u8]) -> Vec<u8> {
        let mut out = match self {
            Scheme::Go => {
                let at = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
                let joined = [&name[..at], b"/PaxHeaders.0/", &name[at..]].concat();
                let mut clean: Vec<&[u8]> = Vec::new();
                for part in joined.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
                    clean.push(part);
                }
                let mut out = if name.first() == Some(&b'/') { vec![b'/'] } else { Vec::new() };
                out.extend(clean.join(&b'/').into_iter().filter(u8::is_ascii));
                out.truncate(NAME);
                let kept = out.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
                out.truncate(kept);
                out
            }
            Scheme::Folder { word, dot } => {
                let folder = folder(name, *dot);
                let base = base(name);
                match folder.is_empty() {
                    true => [word, &b"/"[..], base].concat(),
                    false => [folder, b"/", word, b"/", base].concat(),
                }
            }
            Scheme::Base(before) => [before, base(name)].concat(),
            Scheme::Fixed(name) => name.clone(),
        };
        out.truncate(NAME);
        out
    }

    /// Whether it has a number of the process that wrote it, so that the next one has another.
    pub(super) fn is_fleeting(&self) -> bool {
        let word = match self {
            Scheme::Folder { word, .. } => word.as_slice(),
            Scheme::Base(before) => before.strip_suffix(b"/").unwrap_or(before),
            Scheme::Go | Scheme::Fixed(_) => return false,
        };
        let dot = word.iter().rposition(|byte| *byte == b'.');
        dot.is_some_and(|dot| {
            let last = &word[dot + 1..];
            last != b"0" && !last.is_empty() && last.iter().all(u8::is_ascii_digit)
        })
    }

    /// A name as it stands in a header although it does not fit: what is no ASCII and what is too long go.
    pub(super) fn shorten(&self, name: &[u8]) -> Vec<u8> {
        let mut out: Vec<u8> = match self {
            Scheme::Go => name.iter().copied().filter(u8::is_ascii).collect(),
            // One question mark for each character.
            Scheme::Fixed(_) => match std::str::from_utf8(name) {
                Ok(text) => text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect(),
                Err(_) => name.to_vec(),
            },
            Scheme::Folder { .. } | Scheme::Base(_) => name.to_vec(),
        };
        if *self == Scheme::Go {
            shorten_as_go(&mut out);
        }
        out.truncate(NAME);
        out
    }
}

/// A file whose name ends with a slash where it is cut would be taken for a folder: Go puts an end before it.
pub(super) fn shorten_as_go(name: &mut [u8]) {
    if name.len() > NAME && name[NAME - 1] == b'/' {
        let kept = name[..NAME - 1].iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        name[kept] = 0;
    }
}

/// The folder of a name, as `dirname` tells it.
fn folder(name: &[u8], dot: bool) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let Some(slash) = name[..end].iter().rposition(|byte| *byte == b'/') else {
        return if dot { b"." } else { b"" };
    };
    let end = name[..slash].iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    &name[..end]
}

/// The last part of a name.
fn base(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or_default()
}
