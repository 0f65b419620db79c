{{/* The name of objects, 63 characters at most with what is appended. */}}
{{- define "acr.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "acr.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "acr.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "acr.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What selects the pods, and must never change. */}}
{{- define "acr.selectorLabels" -}}
app.kubernetes.io/name: {{ include "acr.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "acr.labels" -}}
{{ include "acr.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "acr.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "acr.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "acr.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* The configuration, with the addresses that go with the mode where it has none. With the notice a pod serves on
     after SIGTERM, while it is taken out of Services and balancers; pulls under way on a node go on through it. */}}
{{- define "acr.config" -}}
{{- $loopback := eq .Values.mode "DaemonSet" -}}
{{- $listen := ternary "127.0.0.1:8080" ":8080" $loopback -}}
{{- $admin := ternary "127.0.0.1:8081" "0.0.0.0:8081" $loopback -}}
{{- $defaults := dict "listen" $listen "admin" $admin "drain" (dict "notice" "5s") -}}
{{- toYaml (merge (deepCopy .Values.config) $defaults) -}}
{{- end }}

{{/* The TCP listeners, in order: {"listeners": [{port, tls, loopback}]}. A Unix socket has no port. */}}
{{- define "acr.listeners" -}}
{{- $found := list -}}
{{- $listen := (include "acr.config" . | fromYaml).listen -}}
{{- if not (kindIs "slice" $listen) }}{{ $listen = list $listen }}{{ end -}}
{{- range $listen -}}
{{- $address := . -}}
{{- if kindIs "map" . }}{{ $address = .address }}{{ end -}}
{{- if $address -}}
{{- $tls := and (kindIs "map" .) (hasKey . "tls") -}}
{{- $port := regexFind "[0-9]+$" (toString $address) -}}
{{- if not $port }}{{ fail (printf "config.listen: %v: give it a port, such as :8080" $address) }}{{ end -}}
{{- $found = append $found (dict "port" (int $port) "tls" $tls "loopback" (include "acr.isLoopback" $address | eq "true")) -}}
{{- end -}}
{{- end -}}
{{- dict "listeners" $found | toYaml -}}
{{- end }}

{{- define "acr.isLoopback" -}}
{{- or (hasPrefix "127." (toString .)) (hasPrefix "localhost:" (toString .)) (hasPrefix "[::1]:" (toString .)) -}}
{{- end }}

{{/* The admin port: {port, loopback}. A port alone is on loopback, as the proxy has it. */}}
{{- define "acr.admin" -}}
{{- $address := (include "acr.config" . | fromYaml).admin -}}
{{- $port := regexFind "[0-9]+$" (toString $address) -}}
{{- if not $port }}{{ fail (printf "config.admin: %v: give it a port, such as 0.0.0.0:8081" $address) }}{{ end -}}
{{- $loopback := or (hasPrefix ":" (toString $address)) (include "acr.isLoopback" $address | eq "true") -}}
{{- dict "port" (int $port) "loopback" $loopback | toYaml -}}
{{- end }}

{{/* Seconds of a time such as 5s or 2m, as the proxy's settings have them. */}}
{{- define "acr.seconds" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+" $text | default "0" | int -}}
{{- if hasSuffix "m" $text }}{{ mul $number 60 }}
{{- else if hasSuffix "h" $text }}{{ mul $number 3600 }}
{{- else }}{{ $number }}{{ end -}}
{{- end }}

{{- define "acr.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- $drain := (include "acr.config" . | fromYaml).drain -}}
{{- add (int (include "acr.seconds" $drain.notice)) (int (include "acr.seconds" (default "25s" $drain.timeout))) 10 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end }}

{{/* How containerd of the node reaches the proxy. */}}
{{- define "acr.mirror" -}}
{{- if .Values.node.mirror -}}
{{- .Values.node.mirror -}}
{{- else -}}
{{- $first := first (include "acr.listeners" . | fromYaml).listeners -}}
{{- printf "%s://127.0.0.1:%d" (ternary "https" "http" $first.tls) (int $first.port) -}}
{{- end -}}
{{- end }}

{{/* What would be found out only when it does not work. */}}
{{- define "acr.check" -}}
{{- $config := .Values.config -}}
{{- if not (or $config.upstream $config.routes) -}}
{{- fail "config: set upstream.domain and upstream.prefix, or routes: the proxy has no registry" -}}
{{- end -}}
{{- $listeners := (include "acr.listeners" . | fromYaml).listeners -}}
{{- if not $listeners }}{{ fail "config.listen: no TCP listener: neither a Service nor a node would reach the proxy" }}{{ end -}}
{{- $admin := include "acr.admin" . | fromYaml -}}
{{- if eq .Values.mode "Deployment" -}}
{{- range $listeners -}}
{{- if .loopback }}{{ fail (printf "config.listen: port %v is on loopback, where no Service reaches it: listen on :%v" .port .port) }}{{ end -}}
{{- end -}}
{{- if $admin.loopback }}{{ fail "config.admin: it is on loopback, where no probe reaches it: set 0.0.0.0:8081, or leave it out" }}{{ end -}}
{{- if .Values.node.remove }}{{ fail "node.remove: a Deployment has written nothing on nodes: set mode: DaemonSet" }}{{ end -}}
{{- else -}}
{{- $registry := first (splitList "/" .Values.image.repository) -}}
{{- if not (or (contains "." $registry) (contains ":" $registry)) }}{{ $registry = "docker.io" }}{{ end -}}
{{- range (default (list (default dict $config.upstream)) $config.routes) -}}
{{- if and (eq (default "fallback" .on_failure) "closed") (eq (first (splitList "/" (default "docker.io" .source))) $registry) -}}
{{- fail (printf "image.repository: nodes would pull it through the closed route of %s, which the pod itself serves: name an image of another registry" $registry) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled $admin.loopback }}{{ fail "serviceMonitor: config.admin is on the node's loopback, where no Prometheus reaches it: set it to 0.0.0.0:8081 and guard the port" }}{{ end -}}
{{- end -}}
{{- if and .Values.workloadIdentity.enabled (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "workloadIdentity: it signs in as a ServiceAccount of its own: set serviceAccount.create or serviceAccount.name" -}}
{{- end -}}
{{- end }}
