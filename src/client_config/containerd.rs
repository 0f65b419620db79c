use super::{File, Mirror, Registry, Setup, quoted, registries};
use crate::route::{DOCKER_HUB, Routes};

/// Where containerd looks if it is told as in [`CONFIG_PATH`].
const CERTS_D: &str = "/etc/containerd/certs.d";
/// One directory: some releases name two by default, with a colon between, and then find neither.
pub const CONFIG_PATH: &str = r#"  # containerd 2
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"

  # containerd 1
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
"#;

pub fn setup(routes: &Routes, mirror: &Mirror) -> Setup {
    let mut notes = vec![format!(
        "containerd reads hosts.toml at each pull. It finds them if /etc/containerd/config.toml, which is never written from here, has one of these (then: systemctl restart containerd):\n\n{CONFIG_PATH}"
    )];
    notes.extend(about_closed(routes));
    Setup { files: files(routes, mirror), notes }
}

/// One `hosts.toml` for each registry.
pub fn files(routes: &Routes, mirror: &Mirror) -> Vec<File> {
    registries(routes)
        .into_iter()
        .map(|(name, registry)| {
            File::toml(format!("{CERTS_D}/{}/hosts.toml", directory(name)), &hosts(name, &registry, mirror))
        })
        .collect()
}

/// What a closed route means for containerd, which knows registries and no paths.
pub fn about_closed(routes: &Routes) -> Vec<String> {
    let all = registries(routes);
    let closed = all.iter().filter(|(_, registry)| registry.closed);
    closed
        .flat_map(|(name, registry)| {
            let pushes =
                format!("{name} is closed: containerd asks nobody else for any image of it, and cannot push to it");
            let others = registry.open.then(|| {
                format!("{name}: one of its routes is closed, which closes all of them for containerd, since it knows no paths")
            });
            let missing = (!registry.whole).then(|| {
                format!("{name}: containerd cannot pull what no route is for: add a route for all of {name}, or let none of its routes be closed")
            });
            [Some(pushes), others, missing].into_iter().flatten()
        })
        .collect()
}

/// What containerd looks for first: a colon is not for every file system.
fn directory(registry: &str) -> String {
    match registry.rsplit_once(':') {
        Some((host, port)) => format!("{host}_{port}_"),
        None => registry.to_owned(),
    }
}

fn hosts(name: &str, registry: &Registry, mirror: &Mirror) -> String {
    let mirror = quoted(&mirror.url());
    // The host is named in either case: containerd 1.6 takes a file without one for none at all, and goes to the source.
    let server = match name {
        _ if registry.closed => format!("# Closed: there is nobody else to ask.\nserver = {mirror}"),
        DOCKER_HUB => "server = \"https://registry-1.docker.io\"".to_owned(),
        name => format!("server = {}", quoted(&format!("https://{name}"))),
    };
    format!("{server}\n\n[host.{mirror}]\n  capabilities = [\"pull\", \"resolve\"]\n")
}
