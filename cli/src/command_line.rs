//! The command that writes a gateway, for a comment in what it writes.

use std::path::Path;

use crate::gateway::{Recipe, Targets};

/// The widest line.
const WIDTH: usize = 76;

/// The command that writes this, without what is left at its default; `more` are
/// further options.
pub(crate) fn of(recipe: &Recipe, config: Option<&Path>, more: &[String]) -> String {
    let mut options = Vec::new();
    match &recipe.targets {
        Targets::Endpoints(server) => {
            let place = server.to_string();
            let place = place.strip_prefix("http://").unwrap_or(&place);
            options.push(format!("--endpoints dns:{place}"));
        }
        Targets::Servers(servers) => options.extend(servers.iter().map(|it| match &it.model {
            Some(model) => format!(
                "--model {}",
                shell(&format!("{model}={}={}", it.name, it.url))
            ),
            None => format!("--server {}", shell(&format!("{}={}", it.name, it.url))),
        })),
    }
    if let Some(header) = &recipe.model_header {
        options.push(format!("--model-header {}", shell(header)));
    }
    if let Some(config) = config {
        options.push(format!("--config {}", shell(&config.display().to_string())));
    } else if !recipe.config.is_empty() {
        options.push("--config FILE".to_owned());
    }
    if recipe.listen != Recipe::LISTEN {
        options.push(format!("--listen {}", recipe.listen));
    }
    if recipe.admin != Recipe::ADMIN {
        options.push(format!("--admin {}", recipe.admin));
    }
    match recipe.status {
        Some(status) if status != Recipe::STATUS => options.push(format!("--status {status}")),
        Some(_) => {}
        None => options.push("--no-status".to_owned()),
    }
    options.extend(more.iter().cloned());
    let line = format!("paceline envoy {}", options.join(" "));
    if line.len() <= WIDTH {
        return line;
    }
    format!("paceline envoy \\\n  {}", options.join(" \\\n  "))
}

/// The text as one word for a shell.
pub(crate) fn shell(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,[]".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
