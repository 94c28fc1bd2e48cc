//! `lab image`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use lab::gateway::filter_module;
use lab::image::{TAG, write};

/// Make container images of the built filter, in the two forms that Istio fetches.
///
/// Needs no container engine. The same module gives the same bytes on every machine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The filter, without it the one that `make build` built
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,

    /// The directory that the images go to
    #[arg(long, value_name = "DIRECTORY", default_value = "out/image")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let path = match &args.module {
        Some(path) => path.clone(),
        None => filter_module()?,
    };
    let module = fs::read(&path).with_context(|| path.display().to_string())?;
    let written = write(&module, &args.out)?;

    println!("Paceline {TAG}, {} bytes", module.len());
    println!("  module    {}", written.module_digest);
    for (name, layout) in [("image", &written.image), ("artifact", &written.artifact)] {
        println!("  {name:<9} {}  {}", layout.digest, layout.path.display());
    }
    println!(
        "  the image for docker load: {}",
        written.docker_archive.display()
    );
    Ok(())
}
