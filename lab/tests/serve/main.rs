//! Emulated servers over real sockets.

#[cfg(test)]
mod command;
#[cfg(test)]
mod control;
#[cfg(test)]
mod device;
#[cfg(test)]
mod infer;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod openai;
#[cfg(test)]
mod support;
