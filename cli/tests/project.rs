//! What releases and reports rely on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn release_notes_are_a_versions_part_of_the_changelog() {
    let changelog = tempfile::NamedTempFile::new().unwrap();
    let text = "# Changelog\n\n## [Unreleased]\n\n### Added\n- new\n\n## [1.2.0] - 2026-01-01\n\n### Fixed\n- old\n\n## [1.1.0]\n";
    fs::write(changelog.path(), text).unwrap();
    let notes = |version: &str| {
        let script = repository().join("scripts/release-notes");
        let output = Command::new(script)
            .arg(version)
            .arg(changelog.path())
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(notes("1.2.0"), (true, "### Fixed\n- old\n".to_owned()));
    assert_eq!(notes("Unreleased"), (true, "### Added\n- new\n".to_owned()));
    assert!(!notes("1.1.0").0, "an empty part is no notes");
    assert!(!notes("1.2").0, "no such version");
}

#[test]
fn workflows_run_what_is_there() {
    let makefile = fs::read_to_string(repository().join("Makefile")).unwrap();
    let mut commands = 0;
    for name in ["ci.yml", "release.yml"] {
        let workflow = yaml(&repository().join(".github/workflows").join(name));
        for job in workflow["jobs"].as_object().unwrap().values() {
            for step in job["steps"].as_array().unwrap() {
                let Some(run) = step["run"].as_str() else {
                    continue;
                };
                for line in run.lines() {
                    let words: Vec<_> = line.split_whitespace().collect();
                    for word in &words {
                        if word.starts_with("scripts/") || word.starts_with(".ci/") {
                            assert!(repository().join(word).is_file(), "{name}: {word}");
                            commands += 1;
                        }
                    }
                    if words.first() == Some(&"make") {
                        for target in &words[1..] {
                            assert!(
                                makefile.contains(&format!("\n{target}:")),
                                "{name}: {target}"
                            );
                            commands += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(commands >= 6, "{commands}");
}

#[test]
fn issue_templates_have_what_their_form_needs() {
    for name in ["bug.yml", "idea.yml"] {
        let form = yaml(&repository().join(".github/ISSUE_TEMPLATE").join(name));
        assert!(
            form["name"].is_string() && form["description"].is_string(),
            "{name}"
        );
        for part in form["body"].as_array().unwrap() {
            let is_text = part["type"] == "markdown";
            let has = |key: &str| part["attributes"][key].is_string();
            assert!(
                if is_text {
                    has("value")
                } else {
                    has("label") && part["id"].is_string()
                },
                "{name}"
            );
        }
    }
}
