//! What a run does: its routes and images, and its loads.

use std::time::Duration;

use oci::platform::Platform;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::image::Mix;
use crate::pull::{Job, LAYERS_AT_ONCE, Layers, Order};
use crate::route::Route;

/// How long connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// For one request, as dockerd does.
    Cold,
    /// For one pull, as containerd does; the order of requests is containerd's, too.
    PerPull,
    /// From pull to pull: what a pull takes without opening connections.
    Warm,
}

impl Connections {
    /// All, in the order of a run.
    pub const ALL: [Self; 3] = [Self::Cold, Self::PerPull, Self::Warm];

    /// The name in flags and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::PerPull => "per-pull",
            Self::Warm => "warm",
        }
    }

    /// The words in a heading.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cold => "a connection a request, as dockerd",
            Self::PerPull => "new connections each pull, as containerd",
            Self::Warm => "warm connections, kept from pull to pull",
        }
    }

    /// The engine whose order of requests belongs to it.
    pub fn order(self) -> Order {
        match self {
            Self::Cold | Self::Warm => Order::Docker,
            Self::PerPull => Order::Containerd,
        }
    }

    /// Idle connections that a pull keeps to each host.
    pub fn max_idle(self) -> usize {
        if self == Self::Cold { 0 } else { LAYERS_AT_ONCE }
    }
}

/// One load; a run may have several, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// How long connections are kept.
    pub connections: Connections,
    /// Concurrent pulls on each side.
    pub concurrency: usize,
    /// Pulls a second on each side; `None` is a closed loop.
    pub rate: Option<f64>,
}

/// The settings that all levels share.
pub(crate) struct Plan {
    /// One side, or both.
    pub routes: Vec<Route>,
    /// What is pulled.
    pub mix: Mix,
    /// Which manifest of an index.
    pub platform: Platform,
    /// How much of the layers.
    pub layers: Layers,
    /// Pulls on each side of a level.
    pub pulls: Option<u64>,
    /// How long a level starts pulls.
    pub duration: Option<Duration>,
    /// Seeds the order of the sides and the choice of images.
    pub seed: u64,
}

impl Plan {
    /// The image of this pull, and whether the sides are in reverse order. Both sides get the same result.
    pub(crate) fn draw(&self, number: u64, order: Order) -> (Job<'_>, bool) {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed.wrapping_add(number));
        let image = self.mix.pick(&mut rng);
        (Job { image, platform: &self.platform, layers: self.layers, order }, rng.random())
    }

    /// Indices of the routes in the order of a pull.
    pub(crate) fn order(&self, reversed: bool) -> impl Iterator<Item = usize> + use<> {
        let count = self.routes.len();
        (0..count).map(move |index| if reversed { count - 1 - index } else { index })
    }
}
