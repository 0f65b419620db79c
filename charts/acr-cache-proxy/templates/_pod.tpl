{{/* The pod of either mode. */}}
{{- define "acr.pod" -}}
{{- $admin := include "acr.admin" . | fromYaml -}}
{{- $onNode := eq .Values.mode "DaemonSet" -}}
{{- $hosts := and $onNode (or .Values.node.hosts .Values.node.remove) -}}
{{- $removes := and $hosts .Values.node.removeOnStop (not .Values.node.remove) -}}
metadata:
  labels:
    {{- include "acr.labels" . | nindent 4 }}
    {{- if .Values.workloadIdentity.enabled }}
    azure.workload.identity/use: "true"
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed configuration makes new pods. Certificates are read anew by the proxy itself.
    checksum/config: {{ include "acr.config" . | sha256sum }}
    kubectl.kubernetes.io/default-container: proxy
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "acr.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "acr.gracePeriod" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $onNode }}
  hostNetwork: true
  {{- end }}
  dnsPolicy: {{ .Values.dnsPolicy | default (ternary "Default" "ClusterFirst" $onNode) }}
  {{- with .Values.priorityClassName | default (ternary "system-node-critical" "" $onNode) }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- if or $hosts .Values.extraInitContainers }}
  initContainers:
    {{- if $hosts }}
    # It never touches a file that the proxy did not write; then it ends with status 1, and its log says what to merge.
    - name: hosts
      image: {{ include "acr.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - client-config
        - containerd
        - --write
        {{- if .Values.node.remove }}
        - --remove
        {{- else }}
        - --prune
        - --config=/etc/acr-cache-proxy/config/config.yaml
        - --mirror={{ include "acr.mirror" . }}
        {{- end }}
        - --root=/node
      securityContext:
        {{- include "acr.rootWithoutCapabilities" . | nindent 8 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        {{- include "acr.volumeMounts" . | nindent 8 }}
        - name: hosts
          mountPath: /node/etc/containerd/certs.d
    {{- end }}
    {{- with .Values.extraInitContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - name: proxy
      image: {{ include "acr.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - serve
        - --config=/etc/acr-cache-proxy/config/config.yaml
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range (include "acr.listeners" . | fromYaml).listeners }}
        - name: proxy-{{ .port }}
          containerPort: {{ .port }}
        {{- end }}
        - name: admin
          containerPort: {{ $admin.port }}
      {{- range $name, $path := dict "startupProbe" "/healthz" "readinessProbe" "/readyz" "livenessProbe" "/healthz" }}
      {{ $name }}:
        httpGet:
          path: {{ $path }}
          port: admin
          {{- if $admin.loopback }}
          host: 127.0.0.1
          {{- end }}
        {{- with index $.Values $name }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- if $removes }}
      lifecycle:
        # Before SIGTERM: containerd then asks the source, and not a port at which nobody listens.
        preStop:
          exec:
            command: [/usr/bin/acr-cache-proxy, client-config, containerd, --write, --remove, --root=/node]
      {{- end }}
      securityContext:
        {{- if $removes }}
        {{- include "acr.rootWithoutCapabilities" . | nindent 8 }}
        {{- else }}
        {{- toYaml .Values.securityContext | nindent 8 }}
        {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        {{- include "acr.volumeMounts" . | nindent 8 }}
        {{- if $removes }}
        - name: hosts
          mountPath: /node/etc/containerd/certs.d
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "acr.fullname" . }}
    {{- with .Values.certificate.secretName }}
    - name: certificate
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.certificate.clientCaSecretName }}
    - name: client-ca
      secret:
        secretName: {{ . }}
        items:
          - key: ca.crt
            path: ca.crt
    {{- end }}
    {{- if $hosts }}
    - name: hosts
      hostPath:
        path: {{ .Values.node.directory }}
        type: DirectoryOrCreate
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not (kindIs "invalid" .Values.tolerations) }}
  tolerations:
    {{- toYaml .Values.tolerations | nindent 4 }}
  {{- else if $onNode }}
  tolerations:
    - operator: Exists
  {{- end }}
  {{- if not (kindIs "invalid" .Values.topologySpreadConstraints) }}
  topologySpreadConstraints:
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
  {{- else if not $onNode }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      # Each version by itself: the old pods of an update are about to go.
      matchLabelKeys: [pod-template-hash]
      labelSelector:
        matchLabels:
          {{- include "acr.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* What the configuration names; every command that reads it has them. */}}
{{- define "acr.volumeMounts" -}}
- name: config
  mountPath: /etc/acr-cache-proxy/config
  readOnly: true
{{- if .Values.certificate.secretName }}
# Not by subPath: such a mount never changes.
- name: certificate
  mountPath: /etc/acr-cache-proxy/tls
  readOnly: true
{{- end }}
{{- if .Values.certificate.clientCaSecretName }}
- name: client-ca
  mountPath: /etc/acr-cache-proxy/client-ca
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The files belong to root, who needs no capability for them. */}}
{{- define "acr.rootWithoutCapabilities" -}}
{{- toYaml (merge (dict "runAsUser" 0 "runAsGroup" 0 "runAsNonRoot" false) (deepCopy .Values.securityContext)) -}}
{{- end }}
