//! Checks of well-known model servers.

use super::super::error::Problems;
use super::super::json::Quoted;
use super::super::reader::Node;
use super::super::suggestion;

const NAMES: [&str; 6] = ["vllm", "sglang", "tgi", "triton", "kserve", "torchserve"];

/// What can be given, in words.
pub(super) const NAMES_ALLOWED: &str =
    "\"vllm\", \"sglang\", \"tgi\", \"triton\", \"kserve\" or \"torchserve\"";

/// A model server whose path is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    /// vLLM, SGLang and TGI say 503 at `/health` while they load, and when their
    /// engine is dead. (At `/v1/models` SGLang answers before the model is loaded.)
    Health,
    /// Triton, and KServe with the Open Inference Protocol, which names the path.
    OpenInference,
    /// TorchServe.
    Ping,
}

impl Preset {
    pub(super) fn takes_model(self) -> bool {
        self == Preset::OpenInference
    }

    /// The path to ask at, for this model where one is asked for.
    pub(super) fn path(self, model: Option<&str>) -> String {
        match (self, model) {
            (Preset::Health, _) => "/health".to_owned(),
            (Preset::OpenInference, None) => "/v2/health/ready".to_owned(),
            (Preset::OpenInference, Some(model)) => {
                format!("/v2/models/{}/ready", percent_encoded(model))
            }
            (Preset::Ping, _) => "/ping".to_owned(),
        }
    }
}

/// The preset of this name.
pub(super) fn read(node: &Node<'_>, name: &str, problems: &mut Problems) -> Option<Preset> {
    match name {
        "vllm" | "sglang" | "tgi" => Some(Preset::Health),
        "triton" | "kserve" => Some(Preset::OpenInference),
        "torchserve" => Some(Preset::Ping),
        _ => {
            let allowed = suggestion::allowed(name, &NAMES);
            problems.add(
                &node.path,
                &format_args!("{} is not a preset; {allowed}", Quoted(name)),
            );
            None
        }
    }
}

/// The name as one segment of a path (RFC 3986, section 2.1).
fn percent_encoded(name: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).map_or('0', |hex| *hex as char);
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}
