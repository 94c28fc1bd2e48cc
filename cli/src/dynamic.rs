//! A gateway in files that change while Envoy runs.
//!
//! The filter can pick only clusters that Envoy has. So a change writes the clusters
//! of before and after first, then the listener, and at last the clusters of after,
//! and waits each time until Envoy has taken the file over. Where nothing is added
//! or nothing removed, a step falls away.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::command_line;
use crate::failure::Failure;
use crate::files;
use crate::gateway::{Layout, Named, Recipe, Targets, text};
use crate::gateway_options;
use crate::running::{Running, Watched};

/// What the directory keeps to know its own files by.
const STATE: &str = "gateway.json";
/// The format of that file.
const FORMAT: u32 = 1;

/// What a directory was written from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    /// What the files say, or will say when the change that was begun is done.
    gateway: Recipe,
    /// What they said before a change that was not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Recipe>,
    /// Where Envoy sees the directory.
    mounted_at: String,
    /// The digests that each watched file may have: what was written last, and during
    /// a change what may have been.
    written: BTreeMap<String, Vec<String>>,
}

impl State {
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.gateway
    }

    /// The servers, a line each.
    pub(crate) fn servers(&self) -> String {
        let line = |server: &Named| format!("  {:<16} {}\n", server.name, server.url);
        self.gateway.servers().iter().map(line).collect()
    }
}

/// What a directory was written from; `None` where there is nothing.
pub(crate) fn read(directory: &Path) -> Result<Option<State>, Failure> {
    let path = directory.join(STATE);
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read(&path)?;
    let refuse = |why: String| Failure::refused(format!("{}: {why}", path.display()));
    let state: State = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    if state.format != FORMAT {
        return Err(refuse(format!(
            "format {} is not {FORMAT}: another version of paceline has written it",
            state.format
        )));
    }
    Ok(Some(state))
}

/// Adds servers to a recipe.
pub(crate) fn add(recipe: &mut Recipe, texts: &[String]) -> Result<(), Failure> {
    if texts.is_empty() {
        return Ok(());
    }
    let Targets::Servers(servers) = &mut recipe.targets else {
        return Err(Failure::usage(
            "--add: the endpoints of one cluster come and go by themselves",
        ));
    };
    let more = gateway_options::added(texts, servers)?;
    servers.extend(more);
    Ok(())
}

/// Removes servers from a recipe, by name or URL.
pub(crate) fn remove(recipe: &mut Recipe, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let Targets::Servers(servers) = &mut recipe.targets else {
            return Err(Failure::usage(
                "--remove: the endpoints of one cluster come and go by themselves",
            ));
        };
        let is_it = |text: &str| text == name || text.strip_prefix("http://") == Some(name);
        let found = servers
            .iter()
            .position(|it| it.name == *name || is_it(&it.url.to_string()));
        let Some(at) = found else {
            let all: Vec<_> = servers
                .iter()
                .map(|it| format!("{} ({})", it.name, it.url))
                .collect();
            return Err(Failure::usage(format!(
                "--remove {name}: no such server; there are {}",
                all.join(", ")
            )));
        };
        if servers.len() == 1 {
            return Err(Failure::usage(format!(
                "--remove {name}: it is the only server, and a gateway needs one"
            )));
        }
        servers.remove(at);
    }
    Ok(())
}

/// A configuration that names its upstreams does not know of added servers.
pub(crate) fn refuse_own_upstreams(recipe: &Recipe) -> Result<(), Failure> {
    match ["upstreams", "pools"]
        .iter()
        .find(|key| recipe.config.contains_key(**key))
    {
        Some(key) => Err(Failure::usage(format!(
            "the configuration names its own {key}: give --config as well, with the servers that are to be there"
        ))),
        None => Ok(()),
    }
}

/// How a directory is changed.
pub(crate) struct Change<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) mounted_at: Option<&'a str>,
    pub(crate) offline: bool,
    /// How long Envoy may take for a step.
    pub(crate) wait: Duration,
}

impl Change<'_> {
    /// Writes the files for the first time.
    pub(crate) fn begin(&self, recipe: Recipe) -> Result<(), Failure> {
        files::make_directory(self.directory)?;
        for name in [text::BOOTSTRAP, text::LISTENERS, text::CLUSTERS] {
            let path = self.directory.join(name);
            if path.exists() {
                return Err(Failure::usage(format!(
                    "{}: is there already, and was not written by `paceline envoy --dynamic`; move it away, or choose an empty directory",
                    path.display()
                )));
            }
        }
        let mounted_at = self.seen_at()?;
        let layout = Layout::of(&recipe)?;
        let written = render(&layout, &recipe, &mounted_at)?;
        // Where a file is missing, the next call begins anew; so the state comes last.
        files::write(&self.directory.join(text::CLUSTERS), &written.clusters)?;
        files::write(&self.directory.join(text::LISTENERS), &written.listeners)?;
        files::write(&self.directory.join(text::BOOTSTRAP), &written.bootstrap)?;
        let state = State {
            format: FORMAT,
            gateway: recipe,
            before: None,
            mounted_at,
            written: digests(&[&written.listeners], &[&written.clusters]),
        };
        self.save(&state)?;
        let bootstrap = self.directory.join(text::BOOTSTRAP).display().to_string();
        println!(
            "written; start Envoy with\n  envoy -c {}",
            command_line::shell(&bootstrap)
        );
        Ok(())
    }

    /// Ends a change that was interrupted; gives the state after it.
    pub(crate) fn resume(&self, state: State) -> Result<State, Failure> {
        if state.before.is_none() {
            return Ok(state);
        }
        println!("first what an earlier change left to do:");
        let recipe = state.gateway.clone();
        self.go(state, recipe)
    }

    /// Changes the files to what `recipe` says; gives the state after it.
    pub(crate) fn go(&self, state: State, recipe: Recipe) -> Result<State, Failure> {
        self.refuse_foreign_changes(&state)?;
        let running = Running::find(state.gateway.admin, self.offline, self.wait)?;
        let mounted_at = match self.mounted_at {
            Some(_) => self.seen_at()?,
            None => state.mounted_at.clone(),
        };
        let before = state.before.as_ref().unwrap_or(&state.gateway);
        let (old, new) = (Layout::of(before)?, Layout::of(&recipe)?);
        let last = render(&new, &recipe, &mounted_at)?;
        let both = render(&new.with_clusters_of(&old), &recipe, &mounted_at)?;
        let mut next = State {
            format: FORMAT,
            gateway: recipe,
            before: Some(before.clone()),
            mounted_at,
            written: digests(&[&last.listeners], &[&both.clusters, &last.clusters]),
        };
        for (name, digests) in state.written {
            next.written.entry(name).or_default().extend(digests);
        }
        self.save(&next)?;

        let outcome = self.steps(&running, (&old, &new), &both.clusters, &last);
        if outcome.as_ref().is_err_and(Failure::is_refusal) {
            // What was is what is asked for again; what was added goes with the next change.
            next.before = Some(std::mem::replace(&mut next.gateway, state.gateway));
            self.save(&next)?;
        }
        outcome?;

        let bootstrap = self.directory.join(text::BOOTSTRAP);
        if settings(&files::read(&bootstrap)?) != settings(&last.bootstrap) {
            println!(
                "{}: changed; Envoy reads it only when it starts",
                bootstrap.display()
            );
        }
        files::replace(&bootstrap, &last.bootstrap)?;
        next.before = None;
        next.written = digests(&[&last.listeners], &[&last.clusters]);
        self.save(&next)?;
        Ok(next)
    }

    /// The files in their order.
    fn steps(
        &self,
        running: &Running,
        (old, new): (&Layout, &Layout),
        clusters_of_both: &str,
        last: &text::Dynamic,
    ) -> Result<(), Failure> {
        // Where nothing is added, the listener names only what is there.
        if new.adds_clusters_to(old) {
            self.step(running, Watched::Clusters, clusters_of_both)?;
        }
        self.step(running, Watched::Listeners, &last.listeners)?;
        if old.adds_clusters_to(new) {
            running.wait_until_drained()?;
        }
        self.step(running, Watched::Clusters, &last.clusters)
    }

    /// Replaces one file, unless that changes nothing, and waits for Envoy. What it
    /// refuses is taken back.
    fn step(&self, running: &Running, what: Watched, text: &str) -> Result<(), Failure> {
        let path = self.directory.join(what.file());
        let old = files::read(&path)?;
        if old == text {
            return Ok(());
        }
        running.replace(what, &path, text).inspect_err(|_| {
            // The first failure is the one to tell.
            let _ = files::replace(&path, &old);
        })?;
        println!("{}: {}", path.display(), running.taken_over());
        Ok(())
    }

    /// Refuses to overwrite what somebody else has written.
    fn refuse_foreign_changes(&self, state: &State) -> Result<(), Failure> {
        for (name, digests) in &state.written {
            let path = self.directory.join(name);
            let found = digest(&files::read(&path)?);
            if !digests.contains(&found) {
                return Err(Failure::usage(format!(
                    "{}: was changed by hand, and that would be lost; put the change into --config if it is the filter's, \
                     or move {STATE} and the three files away and begin anew",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// Where Envoy sees the directory: by its absolute path unless told otherwise.
    fn seen_at(&self) -> Result<String, Failure> {
        match self.mounted_at {
            Some(directory) => Ok(directory.to_owned()),
            None => match self.directory.canonicalize() {
                Ok(path) => Ok(path.display().to_string()),
                Err(error) => Err(Failure::usage(format!(
                    "{}: {error}",
                    self.directory.display()
                ))),
            },
        }
    }

    fn save(&self, state: &State) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(state).map_err(anyhow::Error::from)?;
        files::replace(&self.directory.join(STATE), &format!("{text}\n"))
    }
}

fn render(layout: &Layout, recipe: &Recipe, mounted_at: &str) -> Result<text::Dynamic, Failure> {
    let more = [
        "--dynamic DIR".to_owned(),
        format!("--mounted-at {}", command_line::shell(mounted_at)),
    ];
    text::dynamic(layout, &command_line::of(recipe, None, &more), mounted_at)
}

/// A file without its comments.
fn settings(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect()
}

fn digests(listeners: &[&str], clusters: &[&str]) -> BTreeMap<String, Vec<String>> {
    let all = |texts: &[&str]| texts.iter().map(|text| digest(text)).collect();
    [
        (text::LISTENERS.to_owned(), all(listeners)),
        (text::CLUSTERS.to_owned(), all(clusters)),
    ]
    .into()
}

fn digest(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
