//! The admin listener. It has a port of its own, so that load balancers and kubelets can reach it while clients cannot.

mod health;

pub(crate) use health::Health;
