//! Numbers as people read them.

/// With a comma at each third digit.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time given in microseconds, in the unit that suits it.
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} \u{b5}s"),
        1_000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => seconds(us as f64 / 1e6),
    }
}

pub fn seconds(s: f64) -> String {
    if s < 10.0 {
        format!("{s:.1} s")
    } else if s < 120.0 {
        format!("{s:.0} s")
    } else if s < 7_200.0 {
        format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0)
    } else {
        format!("{:.1} h", s / 3_600.0)
    }
}

/// A count or a rate in three digits.
pub fn short(number: f64) -> String {
    let (divisor, unit) = match number.abs() {
        n if n >= 999_500_000.0 => (1e9, "G"),
        n if n >= 999_500.0 => (1e6, "M"),
        n if n >= 9_995.0 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let value = number / divisor;
    if unit.is_empty() {
        if value == value.trunc() || value >= 100.0 {
            grouped(value.round() as u64)
        } else {
            format!("{value:.1}")
        }
    } else if value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        let text = format!("{value:.1}");
        format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
    }
}

/// A change as a share of what was: in per cent, or how many times as much.
pub fn change(share: f64) -> String {
    if share >= 9.0 { format!("\u{d7}{:.0}", share + 1.0) } else { format!("{:+.1} %", share * 100.0) }
}

pub fn bytes(count: u64) -> String {
    let mib = count as f64 / f64::from(1 << 20);
    if mib >= 1_024.0 { format!("{:.1} GiB", mib / 1_024.0) } else { format!("{mib:.0} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        let table =
            [(12.0, "12"), (0.5, "0.5"), (9_000.0, "9,000"), (60_000.0, "60 k"), (1_270_000.0, "1.3 M")];
        for (number, text) in table {
            assert_eq!(short(number), text);
        }
        let table = [
            (900, "900 \u{b5}s"),
            (1_500, "1.5 ms"),
            (15_000, "15 ms"),
            (2_500_000, "2.5 s"),
            (660_000_000, "11 min 00 s"),
        ];
        for (us, text) in table {
            assert_eq!(micros(us), text);
        }
    }
}
