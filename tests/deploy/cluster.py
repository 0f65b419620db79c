"""A real API server takes the chart's objects: etcd and kube-apiserver, without anything that would run them."""

import contextlib
import subprocess
import time

import yaml

from run import CHART, Failed, require, run

# In a network of its own, so the ports are free.
ETCD, PEER, API = 2379, 2380, 6443
TOKEN = "of-the-check"
START_SECONDS = 120
STEP_SECONDS = 0.2
# Not Kubernetes' own: the samples' tool compares them with the operator's types.
FOREIGN = ("ServiceMonitor", "PrometheusRule")


@contextlib.contextmanager
def daemon(tools, work, name, *arguments):
    with open(work / f"{name}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen([str(word) for word in (tools.path(name), *arguments)], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def check(tools, rendered, work):
    run("openssl", "genrsa", "-out", work / "accounts.key", "2048")
    (work / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    etcd = ("--data-dir", work / "etcd", "--unsafe-no-fsync", "--listen-client-urls", f"http://127.0.0.1:{ETCD}",
            "--advertise-client-urls", f"http://127.0.0.1:{ETCD}", "--listen-peer-urls", f"http://127.0.0.1:{PEER}")
    api = ("--etcd-servers", f"http://127.0.0.1:{ETCD}", "--secure-port", API, "--bind-address", "127.0.0.1",
           "--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none", "--cert-dir", work / "certificates",
           "--service-cluster-ip-range", "10.96.0.0/16", "--token-auth-file", work / "tokens.csv",
           "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", work / "accounts.key",
           "--service-account-signing-key-file", work / "accounts.key", "--authorization-mode", "RBAC")
    with daemon(tools, work, "etcd", *etcd), daemon(tools, work, "kube-apiserver", *api) as server:
        kubectl = Kubectl(tools, work)
        kubectl.wait(server, work / "kube-apiserver.log")
        for one in rendered:
            kubectl.take(one)
            yield f"cluster {one.name}: the API server takes every object and a pod of it; helm installs, upgrades, uninstalls"
        kubectl.refuse(rendered[0])
        yield "cluster: it refuses a misspelt field, and a pod with more rights"


class Kubectl:
    """kubectl as an administrator."""

    def __init__(self, tools, work):
        self.tools, self.work = tools, work

    def run(self, *arguments, **options):
        words = ("--server", f"https://127.0.0.1:{API}", "--token", TOKEN, "--insecure-skip-tls-verify")
        return self.tools.run("kubectl", *words, *arguments, env={"HOME": str(self.work)}, **options)

    def wait(self, server, log):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.run("get", "--raw", "/readyz")
                # Made by the server itself, after it is ready.
                self.run("get", "priorityclass", "system-node-critical")
                return
            except Failed as cause:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"the API server does not start: {cause}\n{log.read_text()[-4000:]}") from cause
            time.sleep(STEP_SECONDS)

    def helm(self, *arguments, namespace):
        words = ("--kube-apiserver", f"https://127.0.0.1:{API}", "--kube-token", TOKEN, "--kube-insecure-skip-tls-verify")
        return self.tools.run("helm", *arguments, "--namespace", namespace, *words, env={"HOME": str(self.work)})

    def apply(self, objects, namespace, *arguments, **options):
        words = ("apply", "--validate=strict", "--namespace", namespace, "--filename", "-")
        return self.run(*words, *arguments, input=yaml.safe_dump_all(objects), **options)

    def namespace(self, name, level):
        labels = {"pod-security.kubernetes.io/enforce": level}
        self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}], "default")

    def take(self, one):
        workload = one.workload()
        # A Deployment has to do with the fewest rights; what is on a node cannot.
        level = "restricted" if workload["kind"] == "Deployment" else "privileged"
        namespace = one.name
        self.namespace(namespace, level)
        self.apply([account(namespace, "existing")], namespace)
        objects = [found for found in one.objects if found["kind"] not in FOREIGN]
        for foreign in (found for found in one.objects if found["kind"] in FOREIGN):
            self.operators(foreign)
        require(len(objects) > 2, f"{one.name}: {len(objects)} objects")
        for found in objects:
            # The namespace of the release is that of this check.
            found = {**found, "metadata": {**found["metadata"], "namespace": namespace}}
            said = self.apply([found], namespace, "--dry-run=server")
            require("created" in said and "Warning" not in said, f"{one.name}: {said}")
        # The operator's kinds are not installed here.
        values = ("--values", CHART / f"ci/{one.name}-values.yaml", "--set", "serviceMonitor.enabled=false,prometheusRule.enabled=false")
        said = self.helm("install", "mirror", CHART, *values, namespace=namespace)
        require("STATUS: deployed" in said and "Warning" not in said, f"{one.name}: {said}")
        notes = said.split("\nNOTES:\n")[-1]
        require("/readyz" in notes and "{{" not in notes and "%!" not in notes, f"{one.name}: NOTES.txt: {notes}")
        opens = "preStop" in one.text and "exec:" in one.text and "on_failure: closed" in one.text
        require(("WARNING" in notes) == opens, f"{one.name}: NOTES.txt warns wrongly: {notes}")
        # Admission judges pods, not the templates of a workload.
        said = self.apply([pod_of(workload, namespace)], namespace, "--dry-run=server")
        require("created" in said and "Warning" not in said, f"{one.name}: {said}")
        self.helm("upgrade", "mirror", CHART, *values, "--set", "config.log=warn", namespace=namespace)
        self.helm("uninstall", "mirror", "--wait", namespace=namespace)
        left = self.run("get", "all,configmaps,serviceaccounts", "--namespace", namespace, "--output", "name")
        require("mirror" not in left, f"{one.name}: left behind: {left}")

    def operators(self, found):
        """The operator's own type takes it, and takes no misspelt one."""
        file, (key, *_) = self.work / "operators.yaml", found["spec"]
        file.write_text(yaml.safe_dump(found))
        self.tools.run("samples", "operator", file)
        file.write_text(yaml.safe_dump({**found, "spec": {**found["spec"], f"{key}s": []}}))
        self.tools.run("samples", "operator", file, fails=True)

    def refuse(self, one):
        wrong = {**one.workload(), "metadata": {"name": "wrong", "namespace": one.name}}
        wrong["spec"] = {**wrong["spec"], "replica": 1}
        said = self.apply([wrong], one.name, fails=True)
        require('unknown field "spec.replica"' in said, said)
        root = pod_of(one.workload(), one.name)
        root["metadata"]["name"] = "root"
        root["spec"] = {**root["spec"], "hostNetwork": True}
        self.namespace("restricted", "restricted")
        self.apply([account("restricted", root["spec"]["serviceAccountName"])], "restricted")
        root["metadata"]["namespace"] = "restricted"
        said = self.apply([root], "restricted", fails=True)
        require("violates PodSecurity" in said, said)


def account(namespace, name):
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def pod_of(workload, namespace):
    """What a controller would make of it."""
    template = workload["spec"]["template"]
    metadata = {"name": "of-the-template", "namespace": namespace, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
