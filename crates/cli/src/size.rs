//! Sizes as people write and read them.

/// Parses `4096`, `64k`, `64KiB`, `8M`, `8MiB`, `2G`, `2GiB`: powers of 1024.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("not a size: write a number and k, M, G or T (powers of 1024)".into()),
    };
    let number: u64 = number.parse().map_err(|_| "not a size: write a number first".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "size out of range".into())
}

/// Parses the window of the operation stream: a power of two from 1 KiB to 128 MiB. Gives its log2.
pub fn parse_window(text: &str) -> Result<u32, String> {
    let bytes = parse(text)?;
    let log = bytes.checked_ilog2().unwrap_or(0);
    if bytes.is_power_of_two() && (10..=27).contains(&log) {
        Ok(log)
    } else {
        Err("the window must be a power of two from 1KiB to 128MiB".into())
    }
}

/// Parses `90s`, `12h`, `30d`, `8w`.
pub fn parse_time(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err("not a time: write a number and s, m, h, d or w".into()),
    };
    let number: u64 = number.parse().map_err(|_| "not a time: write a number first".to_owned())?;
    number.checked_mul(seconds).map(std::time::Duration::from_secs).ok_or_else(|| "time out of range".into())
}

/// A time that has passed, in its largest unit.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1234567` as `1.2 MiB`.
pub fn human(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `part` of `whole` in percent.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.2}%", part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [("0", 0), ("4096", 4096), ("64k", 65536), ("8MiB", 8 << 20), ("2G", 2 << 30)] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        for text in ["", "k", "-1", "1.5G", "12 M", "1x", "99999999T"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_window("8MiB"), Ok(23));
        assert!(
            parse_window("9MiB").is_err() && parse_window("256MiB").is_err() && parse_window("0").is_err()
        );
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!(human(1_234_567), "1.2 MiB");
        assert_eq!(human(999), "999 B");
        assert_eq!(percent(1, 8), "12.50%");
    }
}
