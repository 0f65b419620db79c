# The image by a container engine: docker build --build-arg REVISION="$(git rev-parse HEAD)" .
# scripts/image makes the same files without one. Besides the base image, the build asks only Debian's packages and crates.io.
ARG RUST=docker.io/library/rust:1.95-slim-bookworm
FROM ${RUST} AS build
# Debian keeps one version of each package in a release, so a pinned one would fail at the next update.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates cmake make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# What `acr-cache-proxy --version` says of the commit, as in "a0e496d1c2, 2026-11-26"; .git is not copied.
ARG ACR_CACHE_PROXY_COMMIT=
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    scripts/image --root /image

# No C library, no shell, no package manager: the program, Mozilla's CA certificates, the licence.
FROM scratch
ARG REVISION=
ARG VERSION=0.1.0
LABEL org.opencontainers.image.description="Pull proxy between container engines and Azure Container Registry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.title="acr-cache-proxy" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /image/ /
ENV PATH=/usr/bin
# A number, because Kubernetes' runAsNonRoot does not look names up.
USER 65532:65532
EXPOSE 8080
# No HEALTHCHECK: it would have to be a program in the image, and the one that is there does not ask its own /readyz. Ask the
# port of --admin-address from outside.
ENTRYPOINT ["/usr/bin/acr-cache-proxy"]
