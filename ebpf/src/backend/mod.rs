//! One file a kind of hook. Each finds the socket, the direction, the length and the user buffer of a call in its own
//! way and ends in `payload::take`.

mod socket;
