//! Which hosts hold a registry's blobs. A redirect to any other is not followed.

/// Where Azure keeps blobs, in each of its clouds; the name in front is the storage account's.
const AZURE: [&str; 3] = [".blob.core.windows.net", ".blob.core.usgovcloudapi.net", ".blob.core.chinacloudapi.cn"];
/// The port of `https`.
pub(crate) const HTTPS: u16 = 443;

/// The storage hosts of one registry.
#[derive(Clone, Debug)]
pub(crate) struct BlobHosts {
    /// The registry's own data endpoints, `<name>.<region>.data.azurecr.io`: how they begin and end.
    data: Option<(String, String)>,
    /// Further ones: whole, or as a suffix with a dot in front.
    further: Vec<String>,
}

impl BlobHosts {
    /// For a registry's login server, with what the settings add.
    pub(crate) fn new(login_server: &str, further: &[String]) -> Self {
        let zone = login_server.find(".azurecr.").map(|at| &login_server[at..]);
        let name = login_server.split('.').next();
        let data = name.zip(zone).map(|(name, zone)| (format!("{name}."), format!(".data{zone}")));
        Self { data, further: further.to_vec() }
    }

    /// The registry is one of ACR, by its name.
    pub(crate) fn are_of_acr(&self) -> bool {
        self.data.is_some()
    }

    /// Whether a blob may come from there. Azure's own hosts only at the port of `https`.
    pub(crate) fn allow(&self, host: &str, port: u16) -> bool {
        let authority = format!("{host}:{port}");
        let is_data = self.data.as_ref().is_some_and(|(name, zone)| host.starts_with(name) && host.ends_with(zone));
        let is_further = |known: &String| match known.strip_prefix('.') {
            Some(_) => port == HTTPS && host.ends_with(known.as_str()),
            None => *known == authority || (port == HTTPS && known == host),
        };
        let is_azures = AZURE.iter().any(|zone| host.ends_with(zone)) || is_data;
        (port == HTTPS && is_azures) || self.further.iter().any(is_further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_come_from_azures_storage_the_registrys_own_endpoints_and_what_is_added() {
        let hosts = BlobHosts::new("example.azurecr.io", &[".blob.internal".to_owned(), "127.0.0.1:9000".to_owned()]);
        for (host, port, allowed) in [
            ("wusmanaged91.blob.core.windows.net", 443, true),
            ("x.blob.core.chinacloudapi.cn", 443, true),
            ("x.blob.core.windows.net", 8443, false),
            ("blob.core.windows.net", 443, false),
            ("x.blob.core.windows.net.evil.example", 443, false),
            ("evilblob.core.windows.net", 443, false),
            ("example.westeurope.data.azurecr.io", 443, true),
            ("other.westeurope.data.azurecr.io", 443, false),
            ("example.azurecr.io", 443, false),
            ("a.blob.internal", 443, true),
            ("a.blob.internal", 80, false),
            ("127.0.0.1", 9000, true),
            ("127.0.0.1", 443, false),
            ("169.254.169.254", 443, false),
        ] {
            assert_eq!(hosts.allow(host, port), allowed, "{host}:{port}");
        }
        let regional = BlobHosts::new("example.westeurope.geo.azurecr.us", &[]);
        assert!(regional.allow("example.westeurope.data.azurecr.us", 443));
        assert!(!BlobHosts::new("registry.example", &[]).allow("registry.data.example", 443));
    }
}
