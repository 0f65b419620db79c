"""The Helm chart: what it renders, and what it refuses."""

import json
from pathlib import Path

import yaml

from run import CHART, KUBERNETES, ROOT, Failed, require

# Values that make no sense, as flags of helm, and a part of what it has to say. The first ones are the schema's.
REFUSED = [
    (["--set", "replica=3"], "additional properties 'replica' not allowed"),
    (["--set", "image.tags=1"], "additional properties 'tags' not allowed"),
    (["--set", "mode=StatefulSet"], "mode"),
    (["--set", "replicas=many"], "replicas"),
    (["--set", "image.digest=latest"], "digest"),
    (["--set", "config.upstream=null"], "set upstream.domain and upstream.prefix, or routes"),
    (["--set", "config.listen=127.0.0.1:8080"], "config.listen: port 8080 is on loopback"),
    (["--set", "config.listen=no-port"], "config.listen: no-port: give it a port"),
    (["--set", "config.admin=:8081"], "config.admin: it is on loopback"),
    (["--set", "config.listen[0].unix=/run/proxy.sock"], "config.listen: no TCP listener"),
    (["--set", "node.remove=true"], "node.remove: a Deployment has written nothing on nodes"),
    (["--set", "mode=DaemonSet,serviceMonitor.enabled=true"], "serviceMonitor: config.admin is on the node's loopback"),
    (["--set", "mode=DaemonSet,image.repository=mirror/proxy,config.upstream.on_failure=closed"], "image.repository: nodes would"),
    (["--set", "workloadIdentity.enabled=true,workloadIdentity.clientId=a,serviceAccount.create=false"], "workloadIdentity: it signs in"),
    (["--set", "workloadIdentity.enabled=true"], "clientId"),
]
MINIMAL = CHART / "ci/minimal-values.yaml"


class Rendered:
    """What one file of values makes."""

    def __init__(self, values, text):
        self.name = values.name.removesuffix("-values.yaml")
        self.text = text
        self.objects = [found for found in yaml.safe_load_all(text) if found]

    def of(self, kind):
        return [found for found in self.objects if found["kind"] == kind]

    def workload(self):
        [workload] = self.of("Deployment") + self.of("DaemonSet")
        return workload

    def config(self):
        return self.of("ConfigMap")[0]["data"]["config.yaml"]


def template(tools, *arguments, **options):
    words = ("template", "mirror", CHART, "--namespace", "mirror", "--kube-version", KUBERNETES)
    return tools.run("helm", *words, *arguments, **options)


def render_all(tools):
    files = sorted((CHART / "ci").glob("*-values.yaml"))
    require(len(files) > 3, "charts/acr-cache-proxy/ci has too few values")
    return [Rendered(file, template(tools, "--values", file)) for file in files]


def check(tools, rendered):
    for one in rendered:
        values = CHART / f"ci/{one.name}-values.yaml"
        tools.run("helm", "lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", values)
        yield f"chart {one.name}: helm lint and template"
    for flags, words in REFUSED:
        said = template(tools, "--values", MINIMAL, *flags, fails=True)
        require(words in said, f"{flags}: it does not say {words!r}: {said}")
    yield f"chart: {len(REFUSED)} wrong values are refused, each in words"

    by_name = {one.name: one for one in rendered}
    minimal = by_name["minimal"]
    again = Rendered(MINIMAL, template(tools, "--values", MINIMAL, "--set", "config.log=warn"))
    checksums = [
        one.workload()["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for one in (minimal, again)
    ]
    require(checksums[0] != checksums[1], "a changed configuration makes no new pods")
    noticed = Rendered(MINIMAL, template(tools, "--values", MINIMAL, "--set", "config.drain.notice=15s,config.drain.timeout=2m"))
    spec = noticed.workload()["spec"]["template"]["spec"]
    require(spec["terminationGracePeriodSeconds"] == 145, f"15 s, 120 s and 10 s: {spec['terminationGracePeriodSeconds']}")
    spec = minimal.workload()["spec"]["template"]["spec"]
    require(spec["terminationGracePeriodSeconds"] == 40, f"5 s, 25 s and 10 s: {spec['terminationGracePeriodSeconds']}")
    listeners = "config.listen[0].address=:8080,config.listen[1].address=:8443,config.listen[1].tls.certificate=a,config.listen[2].unix=/run/a"
    several = Rendered(MINIMAL, template(tools, "--values", MINIMAL, "--set", listeners))
    ports = [(port["name"], port["port"]) for port in several.of("Service")[0]["spec"]["ports"]]
    require(ports == [("http-8080", 8080), ("https-8443", 8443)], f"a port for each TCP listener: {ports}")
    yield "chart: checksum, grace period and ports follow the configuration"

    for one in rendered:
        consistent(one)
    yield "chart: names, selectors and ports agree"

    [version] = [line.split('"')[1] for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version = ")]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    require(about["appVersion"] == version, f"Chart.yaml: appVersion is {about['appVersion']}, Cargo.toml has {version}")
    go = (Path(__file__).parent / "tools/kubernetes/go.mod").read_text()
    require(f"k8s.io/kubernetes v{KUBERNETES}" in go, "run.py: KUBERNETES is not the API server's version")
    require(f"gitVersion=v{KUBERNETES} " in (ROOT / "scripts/deploy-check").read_text(), "deploy-check: another version than run.py")
    schema()
    alerts = (ROOT / "conf/alerts.yaml").read_text()
    require((CHART / "alerts.yaml").read_text() == alerts, "charts/acr-cache-proxy/alerts.yaml is not conf/alerts.yaml: copy it")
    [rule] = by_name["routes"].of("PrometheusRule")
    require(rule["spec"] == yaml.safe_load(alerts), "the chart's alert rules are not those of conf/alerts.yaml")
    yield "chart: version, a schema for each value, and the alert rules"


def consistent(one):
    """What no schema knows: that objects mean each other."""
    workload = one.workload()
    labels = workload["spec"]["template"]["metadata"]["labels"]
    selectors = [workload["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in one.of("Service")]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in one.of("PodDisruptionBudget")]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in one.of("NetworkPolicy")]
    for selector in selectors:
        require(selector.items() <= labels.items(), f"{one.name}: {selector} selects no pod of {labels}")
    ports = {port["containerPort"] for port in workload["spec"]["template"]["spec"]["containers"][0]["ports"]}
    for service in one.of("Service"):
        for port in service["spec"]["ports"]:
            require(port["targetPort"] in ports, f"{one.name}: {service['metadata']['name']} leads to no port: {port}")
    for monitor in one.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [service for service in one.of("Service") if selector.items() <= service["metadata"]["labels"].items()]
        names = [port["name"] for service in found for port in service["spec"]["ports"]]
        require(names == ["admin"], f"{one.name}: the monitor finds {names}")
    for scaler in one.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        require(target["name"] == workload["metadata"]["name"], f"{one.name}: it scales {target}")
        require("replicas" not in workload["spec"], f"{one.name}: replicas and autoscaling")
    account = workload["spec"]["template"]["spec"]["serviceAccountName"]
    accounts = [found["metadata"]["name"] for found in one.of("ServiceAccount")]
    require(accounts == [account] or account == "existing", f"{one.name}: {account} is none of {accounts}")


def schema():
    """values.schema.json has each key of values.yaml, with the default as an allowed value by helm's own check, and no other."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    described = json.loads((CHART / "values.schema.json").read_text())

    def compare(values, described, path):
        known = described.get("properties")
        if known is None:
            return
        require(described.get("additionalProperties") is False, f"values.schema.json: {path}: unknown keys are let through")
        if set(known) - {"global"} != set(values):
            raise Failed(f"values.schema.json: {path}: it differs from values.yaml in {set(known) ^ set(values)}")
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, known[key], f"{path}{key}.")

    compare(values, described, "")
