//! Databases of rpm.

use coracle_codec::rpm::{Error, Limits, packages};

const LIMITS: Limits = Limits { packages: 200, header: 1 << 16, headers: 1 << 18 };

/// Reads `data` as a database; behind the first 4 bytes, which say how many are the database, the rest is the log.
///
/// * The same bytes give the same packages, and a log that is none changes nothing.
/// * Tighter bounds only refuse: a database of so many packages is read with that bound, and refused with one less.
/// * Names are not empty and hold no end of a text.
pub fn rpm_database(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<4>() else { return };
    let cut = (u32::from_le_bytes(*head) as usize).min(rest.len());
    let (database, log) = rest.split_at(cut);
    let found = packages(database, log, &LIMITS);
    let _ = packages(rest, &[], &LIMITS);
    let Ok(found) = found else { return };
    assert_eq!(packages(database, log, &LIMITS).as_ref(), Ok(&found), "not the same again");
    assert!(found.iter().all(|package| !package.name.is_empty() && !package.name.contains('\0')));
    if let Some(limit) = (found.len() as u64).checked_sub(1) {
        let tight = packages(database, log, &Limits { packages: limit, ..LIMITS });
        assert!(matches!(tight, Err(Error::TooLarge { .. })), "{tight:?}");
    }
    if log.len() < 32 {
        assert_eq!(packages(database, &[], &LIMITS).as_ref(), Ok(&found), "half a head of a log counts");
    }
}
