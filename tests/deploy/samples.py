"""The Dockerfile, and the samples in conf: each is read by what would read it, and the program takes what is in it."""

import re

import yaml

from run import ROOT, require, run

COMPOSE, NOMAD = ROOT / "conf/compose.yaml", ROOT / "conf/nomad.hcl"


def check(tools, image, work):
    tools.run("hadolint", ROOT / "Dockerfile")
    wrong = work / "Dockerfile"
    wrong.write_text("FROM debian\nRUN apt-get install curl\n")
    tools.run("hadolint", wrong, fails=True)
    yield "Dockerfile: hadolint"

    service = yaml.safe_load(tools.run("samples", "compose", COMPOSE))["services"]["proxy"]
    program = image / "usr/bin/acr-cache-proxy"
    accepts(program, service["command"], (ROOT / "conf/minimal.yaml").read_text(), work)
    require(str(service["user"]) == "65532:65532" and service["read_only"], f"compose: {service}")
    wrong = work / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("read_only: true\n    user", "readonly: true\n    user"))
    said = tools.run("samples", "compose", wrong, fails=True)
    require("readonly" in said, said)
    yield "compose.yaml: as docker compose config reads it"

    tools.run("samples", "nomad", NOMAD)
    job = NOMAD.read_text()
    config = re.search(r"<<-END\n(.*?)\n +END\n", job, re.S).group(1).replace("${var.registry}", "example.azurecr.io")
    indent = len(config) - len(config.lstrip())
    [arguments] = re.findall(r"args +=\s*\[(.*)\]", job)
    accepts(program, [word.strip().strip('"') for word in arguments.split(",")],
            "\n".join(line[indent:] for line in config.splitlines()), work)
    for right, misspelt in (("kill_timeout", "kill_timeouts"), ("  check {", "  checks {"), ("stagger      =", "stagger =")):
        wrong = work / "nomad.hcl"
        require(right in job, f"nomad.hcl: {right}")
        wrong.write_text(job.replace(right, misspelt))
        tools.run("samples", "nomad", wrong, fails=True)
    yield "nomad.hcl: as nomad fmt reads it, each key one of a job's"


def accepts(program, arguments, config, work):
    """The program takes a command line of serve, with that content in the file that it names: client-config reads both as serve does."""
    file = work / "config.yaml"
    file.write_text(config)
    words = [f"--config={file}" if word.startswith("--config=") else word for word in arguments]
    require(any(word.startswith("--config=") for word in words), f"no --config in {arguments}")
    run(program, "client-config", "containerd", *words)
    run(program, "client-config", "containerd", *words, "--unknown-flag", fails=True)
    file.write_text(f"{config}\nunknown-key: true\n")
    run(program, "client-config", "containerd", *words, fails=True)
