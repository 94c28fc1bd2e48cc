//! Where a request names its model.

use super::error::Problems;
use super::json::Json;
use super::reader::Node;
use super::request_size::read_header;

const SOURCE: &str = "\"body\", or {\"header\": ...} with the header that names the model";

/// What a request's model is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelSource {
    /// The member `model` of the JSON body.
    #[default]
    Body,
    /// The first value of the header of this name, in lower case.
    Header(String),
}

pub(super) fn read(node: Node<'_>, problems: &mut Problems) -> Option<ModelSource> {
    match node.json {
        Json::String(text) if text == "body" => return Some(ModelSource::Body),
        Json::Object(_) => {}
        _ => {
            node.refuse(&SOURCE, problems);
            return None;
        }
    }
    let object = node.object(SOURCE, problems)?;
    object.allow_only(&["header"], problems);
    let header = object.require(
        "header",
        "the name of a header, such as \"x-model\"",
        problems,
    )?;
    read_header(header, problems).map(ModelSource::Header)
}
