"""The pods of the chart, started here: the image's own program, in the image's own files, with the arguments, variables,
volumes, user and rights of the manifest. Then what the kubelet does: probes, preStop, SIGTERM.
"""

import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import yaml

from run import Failed, require, run

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
# Every capability that a kernel may have.
CAPABILITIES = range(64)
# A step of waiting, on which nothing depends.
STEP_SECONDS = 0.05
NODE_DIRECTORY = "node/etc/containerd/certs.d"


def check(rendered, image, work):
    by_name = {one.name: one for one in rendered}
    for one in rendered:
        pod = Pod(one, image, work / one.name)
        with pod:
            pod.lives()
        yield f"pod {one.name}: starts, answers its probes, ends by SIGTERM"
    # Each on a node of its own: what is there after the pod has begun, and after it has ended.
    for name, first, after in (("node", True, False), ("node-keeps", True, True), ("node-remove", False, False)):
        one = by_name[name]
        with Pod(one, image, work / f"{name}-hosts") as pod:
            node = pod.root / NODE_DIRECTORY
            # Of an earlier pod, which kept it; of somebody else.
            seed(pod, node)
            pod.initialize()
            pod.start()
            hosts = node / "docker.io/hosts.toml"
            require(hosts.exists() == first, f"{name}: hosts.toml is {'not ' * first}there")
            if first:
                port = pod.container["ports"][0]["containerPort"]
                require(f"[host.\"http://127.0.0.1:{port}\"]" in hosts.read_text(), f"{name}: {hosts.read_text()}")
                require(not (node / "gone.example").exists(), f"{name}: the file of a route that is gone")
            pod.stop()
            require(hosts.exists() == after, f"{name}: hosts.toml after the end")
            require((node / "foreign.example/hosts.toml").read_text() == "# by hand\n", f"{name}: a foreign file")
            # A pod that is killed leaves its files; the next one on the node goes on with them.
            if name == "node":
                pod.initialize()
                pod.start()
                pod.process.kill()
                pod.process.wait()
                require(hosts.exists(), "killed hard, the files stay")
                pod.initialize()
                pod.start()
                pod.stop()
                require(not hosts.exists(), "the next pod takes them away")
        yield f"pod {name}: hosts.toml come and go, and no others"


def seed(pod, node):
    ours = "# Written by acr-cache-proxy client-config\n"
    for registry, content in (("docker.io", ours), ("gone.example", ours), ("foreign.example", "# by hand\n")):
        (node / registry).mkdir(parents=True)
        (node / registry / "hosts.toml").write_text(content)


class Pod:
    """A pod on this machine, in a root of its own."""

    def __init__(self, rendered, image, root):
        self.rendered, self.root = rendered, root
        self.spec = rendered.workload()["spec"]["template"]["spec"]
        self.container = self.spec["containers"][0]
        self.process = None
        shutil.copytree(image, root)
        for container in [self.container, *self.spec.get("initContainers", [])]:
            for mount in container["volumeMounts"]:
                self.mount(mount)
        # TemporaryDirectory's own directories are closed to the pod's user.
        for directory in (root, *list(root.parents)[:2]):
            if directory != Path("/tmp"):
                directory.chmod(0o755)

        # A container has these from its runtime.
        run("mount", "-t", "proc", "proc", root / "proc")
        for name, minor in (("null", 3), ("random", 8), ("urandom", 9)):
            run("mknod", "-m", "0666", root / "dev" / name, "c", "1", minor)

    def mount(self, mount):
        target = self.root / mount["mountPath"].lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        [volume] = [volume for volume in self.spec["volumes"] if volume["name"] == mount["name"]]
        if "hostPath" in volume:
            return
        if "emptyDir" in volume:
            # Of the pod's group, as the kubelet makes it.
            os.chown(target, 0, self.spec["securityContext"]["fsGroup"])
            target.chmod(0o2777)
            return
        name = volume.get("configMap", {}).get("name")
        for found in self.rendered.of("ConfigMap"):
            if found["metadata"]["name"] == name:
                for file, content in found["data"].items():
                    (target / file).write_text(content)
                return
        # What the release does not bring: a CA, or a certificate that the CA of nobody has signed.
        if "secret" in volume and not volume["secret"].get("items"):
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                "-subj", "/CN=mirror", "-keyout", target / "tls.key", "-out", target / "tls.crt")
            (target / "tls.key").chmod(0o644)
        else:
            bundle = (self.root / "etc/ssl/certs/ca-certificates.crt").read_text()
            end = "-----END CERTIFICATE-----\n"
            (target / "ca.crt").write_text(bundle.split(end)[0] + end)

    def command(self, container, arguments):
        """The process as the kubelet would have it begin: its user, no capability, no new rights, the image as its root."""
        security = {**self.spec["securityContext"], **container["securityContext"]}
        require(security["capabilities"] == {"drop": ["ALL"]}, f"{self.rendered.name}: capabilities")
        require(security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], f"{self.rendered.name}: rights")
        user, group = security["runAsUser"], security["runAsGroup"]
        environment = {one["name"]: one["value"] for one in container.get("env", [])}
        libc = ctypes.CDLL(None)

        def enter():
            os.chroot(self.root)
            os.chdir("/")
            for capability in CAPABILITIES:
                libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)

        return subprocess.Popen(
            ["/usr/bin/acr-cache-proxy", *arguments], preexec_fn=enter, env={"PATH": "/usr/bin", **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )

    def finish(self, process, what):
        said, _ = process.communicate(timeout=self.spec["terminationGracePeriodSeconds"])
        require(process.returncode == 0, f"{self.rendered.name}: {what}: status {process.returncode}\n{said}")
        return said

    def initialize(self):
        for container in self.spec.get("initContainers", []):
            self.finish(self.command(container, container["args"]), f"initContainer {container['name']}")

    def start(self):
        self.process = self.command(self.container, self.container["args"])
        probe = self.container["startupProbe"]
        # The kubelet would give up after so long; this machine may be busy with other tests.
        deadline = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while True:
            try:
                status, _ = self.ask(probe)
                require(status == 200, f"{self.rendered.name}: startupProbe: {status}")
                return
            except OSError as cause:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise Failed(f"{self.rendered.name}: it does not start: {cause}\n{self.process.communicate()[0]}") from cause
            time.sleep(STEP_SECONDS)

    def ask(self, probe):
        request = probe["httpGet"]
        [port] = [port["containerPort"] for port in self.container["ports"] if port["name"] == request["port"]]
        connection = http.client.HTTPConnection(request.get("host", "127.0.0.1"), port, timeout=10)
        try:
            connection.request("GET", request["path"])
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def lives(self):
        self.initialize()
        self.start()
        require(self.ask(self.container["livenessProbe"])[0] == 200, f"{self.rendered.name}: livenessProbe")
        # No registry and no identity are here, so it cannot be ready, and says why.
        status, body = self.ask(self.container["readinessProbe"])
        domain = yaml.safe_load(self.rendered.config())
        domain = (domain.get("upstream") or domain["routes"][0])["domain"]
        require(status == 503 and domain in body, f"{self.rendered.name}: readinessProbe: {status} {body}")
        for port in self.container["ports"]:
            with socket.create_connection(("127.0.0.1", port["containerPort"]), timeout=10):
                pass
        self.stop()

    def stop(self):
        hook = self.container.get("lifecycle", {}).get("preStop", {})
        if "exec" in hook:
            program, *arguments = hook["exec"]["command"]
            require((self.root / program.lstrip("/")).exists(), f"{self.rendered.name}: preStop: {program}")
            self.finish(self.command(self.container, arguments), "preStop")
        self.process.send_signal(signal.SIGTERM)
        if "notice: 5s" in self.rendered.config():
            self.is_leaving()
        self.finish(self.process, "SIGTERM")

    def is_leaving(self):
        """It serves on while it is taken out of the Service, and its probe says why."""
        while '"stopping": true' not in (body := self.ask(self.container["readinessProbe"])[1]):
            require('"stopping"' in body, f"{self.rendered.name}: readinessProbe: {body}")
            time.sleep(STEP_SECONDS)
        for port in self.container["ports"]:
            with socket.create_connection(("127.0.0.1", port["containerPort"]), timeout=10):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        run("umount", self.root / "proc")
        shutil.rmtree(self.root)
