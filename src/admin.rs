//! The admin listener: a port of its own, so that a balancer or a kubelet can ask and no client of the mirror can.

mod health;

pub(crate) use health::Health;
