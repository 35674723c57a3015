{{- define "moongate.labels" -}}
app.kubernetes.io/name: moongate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "moongate.selector" -}}
app.kubernetes.io/name: moongate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moongate.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* Names of the cluster: two releases must not meet. */ -}}
{{- define "moongate.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "moongate.isHost" -}}
{{- if eq .Values.expose "hostnetwork" }}yes{{ end }}
{{- end }}

{{- define "moongate.pod" -}}
metadata:
  labels:
    {{- include "moongate.selector" . | nindent 4 }}
  annotations:
    {{- if and .Values.metrics.scrape (ne .Values.expose "hostnetwork") }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "9901"
    prometheus.io/path: /metrics
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "moongate.name" . }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if include "moongate.isHost" . }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
    {{- if and (or .Values.tcp .Values.udp) (not (include "moongate.isHost" .)) }}
    # Ports below 1024 without root, on the pod's own network.
    sysctls:
      - name: net.ipv4.ip_unprivileged_port_start
        value: "0"
    {{- end }}
  containers:
    - name: moongate
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - run
        {{- if include "moongate.isHost" . }}
        - --http=[::]:80
        - --https=[::]:443
        - --admin=127.0.0.1:9901
        - --publish-node-addresses
        {{- else }}
        - --http=[::]:8080
        - --https=[::]:8443
        - --admin=[::]:9901
        - --publish-service={{ .Release.Namespace }}/{{ include "moongate.name" . }}
        {{- end }}
        - --ingress-class={{ .Values.ingressClass.name }}
        - --controller-name={{ .Values.ingressClass.controller }}
        - --election-lease={{ .Release.Namespace }}/{{ include "moongate.name" . }}-leader
        - --ticket-keys-secret={{ .Release.Namespace }}/{{ include "moongate.name" . }}-tickets
        {{- if .Values.tcp }}
        - --tcp-services-configmap={{ .Release.Namespace }}/{{ include "moongate.name" . }}-tcp
        {{- end }}
        {{- if .Values.udp }}
        - --udp-services-configmap={{ .Release.Namespace }}/{{ include "moongate.name" . }}-udp
        {{- end }}
        - --drain-delay={{ .Values.drain.delay }}
        - --drain-timeout={{ .Values.drain.timeout }}
        {{- range .Values.watchNamespaces }}
        - --watch-namespace={{ . }}
        {{- end }}
        {{- if .Values.webhook.enabled }}
        - --webhook=[::]:8444
        - --webhook-service={{ include "moongate.name" . }}-webhook
        - --webhook-secret={{ .Release.Namespace }}/{{ include "moongate.name" . }}-webhook
        - --webhook-configuration={{ include "moongate.clusterName" . }}
        {{- end }}
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
      ports:
        {{- if include "moongate.isHost" . }}
        - name: http
          containerPort: 80
          hostPort: 80
        - name: https
          containerPort: 443
          hostPort: 443
        {{- else }}
        - name: http
          containerPort: 8080
        - name: https
          containerPort: 8443
        - name: admin
          containerPort: 9901
        {{- end }}
        {{- if .Values.webhook.enabled }}
        - name: webhook
          containerPort: 8444
        {{- end }}
        {{- if include "moongate.isHost" . }}
        {{- range $port, $service := .Values.tcp }}
        - name: tcp-{{ $port }}
          containerPort: {{ $port }}
          hostPort: {{ $port }}
        {{- end }}
        {{- range $port, $service := .Values.udp }}
        - name: udp-{{ $port }}
          containerPort: {{ $port }}
          hostPort: {{ $port }}
          protocol: UDP
        {{- end }}
        {{- end }}
      startupProbe:
        httpGet:
          {{- include "moongate.probe" . | nindent 10 }}
          path: /healthz
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet:
          {{- include "moongate.probe" . | nindent 10 }}
          path: /healthz
        periodSeconds: 10
      readinessProbe:
        httpGet:
          {{- include "moongate.probe" . | nindent 10 }}
          path: /readyz
        periodSeconds: 2
        failureThreshold: 1
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
          add: [NET_BIND_SERVICE]
  {{- if not (include "moongate.isHost" .) }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "moongate.selector" . | nindent 10 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "moongate.probe" -}}
{{- if include "moongate.isHost" . -}}
host: 127.0.0.1
port: 9901
{{- else -}}
port: admin
{{- end }}
{{- end }}

{{- /* What is read of a namespace. */ -}}
{{- define "moongate.watchRules" -}}
- apiGroups: [""]
  resources: [services, secrets, configmaps]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "moongate.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "moongate.name" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
