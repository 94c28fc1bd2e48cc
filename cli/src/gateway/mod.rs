//! A gateway: servers behind an Envoy with Paceline, and the files that say so.
//!
//! A [`Recipe`] is what somebody asks for. A [`Layout`] is what becomes of it: the
//! filter's configuration, checked by the filter's own code, with the clusters and
//! routes that belong to it. [`text`] writes it in Envoy's words.

mod configuration;
mod fallback;
mod json_text;
mod layout;
mod recipe;
mod scalar;
mod server;
pub(crate) mod text;

pub(crate) use json_text::pretty;
pub(crate) use layout::Layout;
pub(crate) use recipe::{Named, Recipe, Targets, name_all};
pub(crate) use server::{Server, split_name};
pub(crate) use text::Templates;
