//! Text as a value in YAML.

use std::net::Ipv4Addr;

/// Words that are no strings to one version of YAML or another.
const RESERVED: [&str; 12] = [
    "true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan", "~",
];

/// The text as a scalar that every reader of YAML takes for this very string: as it
/// is where that is safe, also in `{ }` and `[ ]`, and else in quotes.
pub(crate) fn scalar(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// The text in double quotes, as JSON and YAML both read it.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn is_plain(text: &str) -> bool {
    let first = text.bytes().next().unwrap_or_default();
    let begins = first.is_ascii_alphabetic() || first == b'/' || first == b'_';
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let reserved = RESERVED.iter().any(|word| word.eq_ignore_ascii_case(text));
    text.parse::<Ipv4Addr>().is_ok() || (begins && text.bytes().all(allowed) && !reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_from_yaml() {
        for text in [
            "gpu-a",
            "/etc/envoy/paceline.wasm",
            "/",
            "10.0.0.1",
            "10",
            "1.5",
            "1e3",
            "0x10",
            "true",
            "No",
            "null",
            "",
            " ",
            "a: b",
            "a #b",
            "a,b",
            "a]b",
            "{",
            "*a",
            "&a",
            "-",
            "- a",
            "é",
            "\"",
            "\n",
            "::1",
            "meta-llama/Llama-3.1",
            "a:b",
            "nan",
            ".inf",
            "12:30:45",
            "_",
        ] {
            let yaml = format!("[{{ key: {} }}]", scalar(text));
            let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!(read[0]["key"], text, "{yaml}");
        }
        assert_eq!(scalar("gpu-a"), "gpu-a");
        assert_eq!(scalar("10.0.0.1"), "10.0.0.1");
    }
}
