# The proxy on each Linux client of Nomad, for the container engine of that host: nomad job run conf/nomad.hcl. The engine reaches
# it at http://127.0.0.1:8080; its files come from `acr-cache-proxy client-config`.

variable "image" {
  type        = string
  description = "There is no published image: scripts/image or the Dockerfile makes it. No host may pull it through the proxy."
  default     = "example.azurecr.io/acr-cache-proxy:0.1.0"
}

variable "registry" {
  type    = string
  default = "example.azurecr.io"
}

job "acr-cache-proxy" {
  datacenters = ["*"]
  type        = "system"
  # Other jobs' images come through it.
  priority = 90

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  update {
    max_parallel = 1
    stagger      = "30s"
  }

  group "proxy" {
    network {
      mode = "host"

      port "proxy" {
        static = 8080
      }

      port "admin" {
        static = 8081
      }
    }

    restart {
      # It keeps trying by itself while a registry is down, so an exit is something else.
      attempts = 10
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    task "proxy" {
      driver = "docker"

      config {
        image           = var.image
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        args            = ["--config=/local/config.yaml"]
      }

      template {
        destination = "local/config.yaml"
        # A changed file makes a new task.
        change_mode = "restart"
        data        = <<-END
          listen: 127.0.0.1:8080
          admin: 127.0.0.1:8081
          upstream:
            domain: ${var.registry}
            prefix: hub
        END
      }

      # Of the host's managed identities, the one to sign in as: AZURE_CLIENT_ID. A client secret comes by a template
      # from Vault or a Nomad variable, with env = true.
      env {
        AZURE_CLIENT_ID = "00000000-0000-0000-0000-000000000000"
      }

      # The proxy finishes what is under way within 25 s. The client's max_kill_timeout has to allow it.
      kill_timeout = "35s"

      resources {
        cpu        = 100
        memory     = 96
        memory_max = 512
      }

      service {
        name     = "acr-cache-proxy"
        port     = "admin"
        provider = "nomad"
        # Where it listens, and where the check asks.
        address = "127.0.0.1"

        check {
          type     = "http"
          path     = "/readyz"
          interval = "10s"
          timeout  = "2s"
          # Not ready is no reason to restart: the registry or the sign-in is in trouble, not the proxy.
          on_update = "ignore"
        }
      }
    }
  }
}
