//! The HTTP half from its outside: samples in, exchanges and windows out.

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod gaps;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod plaintext;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod scrub;
#[cfg(test)]
mod support;
#[cfg(test)]
mod windows;
