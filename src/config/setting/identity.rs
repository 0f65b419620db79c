//! The rows of who signs in.

use std::path::PathBuf;

use super::ARC_KEY_DIRECTORY;
use crate::config::file::{Document, Node};
use crate::config::kind::{Audience, Cloud, KindName, parse_audience, parse_cloud, parse_kind};
use crate::config::mistake::Place;
use crate::config::parse::{parse_authority, parse_file, parse_guid, parse_id, parse_resource};
use crate::config::table::{Default, Entry, ROW, Row, Shape, Table, Value, table};

const GUID: &str = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\s*$";

table! {
    /// Who signs in.
    IDENTITY: IdentityRows, IdentityTable {
        kind: Value<KindName> {
            value: "KIND",
            default: Default::Text("default"),
            help: "How to sign in: by the first way that this host has, or by one kind alone",
            more: "`default` takes the first of client secret, client certificate, workload identity, managed identity or \
                   Azure Arc, Azure CLI and Azure Developer CLI. The others are `client_secret`, `client_certificate`, \
                   `workload_identity`, `managed_identity`, `azure_arc`, `azure_cli`, `azure_developer_cli` and \
                   `anonymous`, for a registry that allows anonymous pulls."
        } parse parse_kind;

        cloud: Value<Cloud> {
            value: "public|usgovernment|china",
            default: Default::Words("public"),
            example: "usgovernment",
            help: "The cloud of Azure: public, usgovernment or china",
            more: "For any other, give its `authority`."
        } parse parse_cloud;

        authority: Value<String> {
            variable: Some("AZURE_AUTHORITY_HOST"),
            value: "URL",
            default: Default::Words("that of the cloud"),
            example: "https://login.microsoftonline.com",
            help: "The address of Entra ID, where no `cloud` fits",
            more: "The variable counts where neither `authority` nor `cloud` is set."
        } parse parse_authority;

        audience: Value<Audience> {
            value: "registry|arm|URL",
            default: Default::Text("registry"),
            help: "What the Entra token is for: registry, arm (Azure Resource Manager) or an https:// address",
            more: "`registry` works on every registry, also on one that refuses tokens for Azure Resource Manager."
        } parse parse_audience;

        tenant_id: Value<String> {
            variable: Some("AZURE_TENANT_ID"),
            value: "ID",
            default: Default::Words("none"),
            example: "00000000-0000-0000-0000-000000000000",
            help: "The tenant of the application",
            more: ""
        } parse parse_id;

        client_id: Value<String> {
            variable: Some("AZURE_CLIENT_ID"),
            value: "ID",
            default: Default::Words("none; for managed_identity the system-assigned one"),
            example: "00000000-0000-0000-0000-000000000000",
            pattern: GUID,
            help: "The client id of the application, or of a user-assigned managed identity",
            more: "A managed identity is named by one of `client_id`, `object_id` and `resource_id`."
        } parse parse_guid;

        object_id: Value<String> {
            value: "ID",
            default: Default::Words("none"),
            example: "00000000-0000-0000-0000-000000000000",
            pattern: GUID,
            help: "The object (principal) id of a managed identity",
            more: ""
        } parse parse_guid;

        resource_id: Value<String> {
            value: "ID",
            default: Default::Words("none"),
            example: "/subscriptions/.../userAssignedIdentities/pull",
            help: "The Azure resource id of a managed identity",
            more: ""
        } parse parse_resource;

        client_secret_file: Value<PathBuf> {
            value: "FILE",
            default: Default::Words("the secret in the variable AZURE_CLIENT_SECRET"),
            example: "/run/secrets/client-secret",
            help: "A file that holds the application's secret",
            more: "The secret itself has no key: it comes from this file or from the variable."
        } parse parse_file;

        certificate_file: Value<PathBuf> {
            variable: Some("AZURE_CLIENT_CERTIFICATE_PATH"),
            value: "FILE",
            default: Default::Words("none"),
            example: "/etc/acr-cache-proxy/client.pem",
            help: "A file with the application's certificate and key, PEM or PKCS#12",
            more: ""
        } parse parse_file;

        certificate_password_file: Value<PathBuf> {
            value: "FILE",
            default: Default::Words("the password in the variable AZURE_CLIENT_CERTIFICATE_PASSWORD, else none"),
            example: "/run/secrets/certificate-password",
            help: "A file that holds the password of a PKCS#12 file",
            more: ""
        } parse parse_file;

        token_file: Value<PathBuf> {
            variable: Some("AZURE_FEDERATED_TOKEN_FILE"),
            value: "FILE",
            default: Default::Words("none"),
            example: "/var/run/secrets/azure/tokens/azure-identity-token",
            help: "A file with a federated token, as Kubernetes puts it into a pod",
            more: ""
        } parse parse_file;

        key_directory: Value<PathBuf> {
            value: "DIRECTORY",
            default: Default::Text(ARC_KEY_DIRECTORY),
            help: "Where Azure Arc's agent puts its keys",
            more: ""
        } parse parse_file;
    }
}
