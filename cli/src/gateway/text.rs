//! The files, from the templates in `templates/envoy`.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use super::layout::Layout;
use super::scalar::{quoted, scalar};
use crate::failure::Failure;

const TEMPLATES: [(&str, &str); 9] = [
    ("about", include_str!("../../templates/envoy/about")),
    ("observe", include_str!("../../templates/envoy/observe")),
    ("listener", include_str!("../../templates/envoy/listener")),
    ("status", include_str!("../../templates/envoy/status")),
    ("clusters", include_str!("../../templates/envoy/clusters")),
    ("whole", include_str!("../../templates/envoy/whole")),
    ("dynamic", include_str!("../../templates/envoy/dynamic")),
    ("lds", include_str!("../../templates/envoy/lds")),
    ("cds", include_str!("../../templates/envoy/cds")),
];

/// The files that Envoy watches, and the one that names them.
pub(crate) const BOOTSTRAP: &str = "dynamic.yaml";
pub(crate) const LISTENERS: &str = "lds.yaml";
pub(crate) const CLUSTERS: &str = "cds.yaml";

/// Templates of YAML.
pub(crate) struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// Those of these names and texts.
    pub(crate) fn new(all: &[(&'static str, &'static str)]) -> Result<Self, Failure> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.add_filter("scalar", |text: String| scalar(&text));
        environment.add_filter("quoted", |text: String| quoted(&text));
        // Text that goes on in a comment.
        environment.add_filter("comment", |text: String| text.replace('\n', "\n#   "));
        for (name, text) in all {
            environment
                .add_template(name, text)
                .map_err(anyhow::Error::from)?;
        }
        Ok(Self { environment })
    }

    /// One of them, filled in.
    pub(crate) fn render(&self, name: &str, values: Value) -> Result<String, Failure> {
        let template = self
            .environment
            .get_template(name)
            .map_err(anyhow::Error::from)?;
        let text = template.render(values).map_err(anyhow::Error::from)?;
        Ok(format!("{}\n", text.trim_end()))
    }
}

/// A gateway in one file; `command` is what wrote it.
pub(crate) fn whole(layout: &Layout, command: &str) -> Result<String, Failure> {
    Templates::new(&TEMPLATES)?.render(
        "whole",
        context! { command, is_resource => false, ..Value::from(Serde(layout)) },
    )
}

/// A gateway in three files.
pub(crate) struct Dynamic {
    /// Read once.
    pub(crate) bootstrap: String,
    /// Watched.
    pub(crate) listeners: String,
    /// Watched.
    pub(crate) clusters: String,
}

/// The three files, which Envoy finds in `directory`.
pub(crate) fn dynamic(layout: &Layout, command: &str, directory: &str) -> Result<Dynamic, Failure> {
    let path = |name: &str| format!("{}/{name}", directory.trim_end_matches('/'));
    let values = context! {
        command,
        is_resource => true,
        bootstrap => BOOTSTRAP,
        lds => LISTENERS,
        cds => CLUSTERS,
        lds_path => path(LISTENERS),
        cds_path => path(CLUSTERS),
        ..Value::from(Serde(layout))
    };
    let templates = Templates::new(&TEMPLATES)?;
    Ok(Dynamic {
        bootstrap: templates.render("dynamic", values.clone())?,
        listeners: templates.render("lds", values.clone())?,
        clusters: templates.render("cds", values)?,
    })
}
