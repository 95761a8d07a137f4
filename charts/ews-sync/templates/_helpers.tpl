{{- define "ews-sync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters: a pod's name, with its number, becomes a label of at most 63. */}}
{{- define "ews-sync.fullname" -}}
{{- $name := include "ews-sync.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ews-sync.instance" -}}
app.kubernetes.io/name: {{ include "ews-sync.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the instances, and nothing else of the release. It can never change. */}}
{{- define "ews-sync.selector" -}}
{{ include "ews-sync.instance" . }}
app.kubernetes.io/component: appliance
{{- end -}}

{{- define "ews-sync.labels" -}}
{{ include "ews-sync.instance" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ews-sync.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "ews-sync.serviceAccountName" -}}
{{- default (ternary (include "ews-sync.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The Secret with the token and the like. */}}
{{- define "ews-sync.secretName" -}}
{{- ternary (printf "%s-credentials" (include "ews-sync.fullname" .)) .Values.credentials.secretName .Values.credentials.create -}}
{{- end -}}

{{/* Which values of the Secret are needed, as a JSON list of the names under credentials.keys. */}}
{{- define "ews-sync.neededSecrets" -}}
{{- $needed := list -}}
{{- if not .Values.localFiles.enabled -}}{{- $needed = append $needed "apiToken" -}}{{- end -}}
{{- if eq .Values.login.type "password" -}}{{- $needed = append $needed "password" -}}
{{- else if eq .Values.login.type "oauth2-secret" -}}{{- $needed = append $needed "oauthClientSecret" -}}
{{- else if eq .Values.login.type "oauth2-certificate" -}}
{{- $needed = append $needed "oauthPrivateKey" -}}
{{- if .Values.credentials.withCertificate -}}{{- $needed = append $needed "oauthCertificate" -}}{{- end -}}
{{- end -}}
{{- toJson $needed -}}
{{- end -}}

{{- define "ews-sync.usesCaBundle" -}}
{{- if or .Values.caBundle.pem .Values.caBundle.existingConfigMap -}}yes{{- end -}}
{{- end -}}

{{/* The config file. Authorities of your own are named in it, where the config is ours to write. */}}
{{- define "ews-sync.configFile" -}}
{{- $config := deepCopy .Values.config -}}
{{- if and (include "ews-sync.usesCaBundle" .) (eq .Values.caBundle.scope "exchange") (not (hasKey $config "ews_ssl_ca_bundle")) -}}
{{- $config = set $config "ews_ssl_ca_bundle" "/mnt/ca/ca.crt" -}}
{{- end -}}
{{- toPrettyJson $config -}}
{{- end -}}

{{/* The name of the ConfigMap with the config; empty where it is on the platform. */}}
{{- define "ews-sync.configMapName" -}}
{{- if .Values.config -}}{{ include "ews-sync.fullname" . }}-config
{{- else -}}{{ .Values.existingConfigMap.name }}
{{- end -}}
{{- end -}}

{{/* Whether each instance has a volume: yes, or nothing. */}}
{{- define "ews-sync.hasVolume" -}}
{{- if or .Values.localFiles.enabled .Values.deadLetters.enabled -}}yes{{- end -}}
{{- end -}}

{{- define "ews-sync.hasProxy" -}}
{{- if or .Values.proxy.https .Values.proxy.http .Values.proxy.existingSecret -}}yes{{- end -}}
{{- end -}}

{{/* Where mail is kept until it is stored, and where it is stored with localFiles. */}}
{{- define "ews-sync.volumePath" -}}/var/lib/ews-sync{{- end -}}

{{/* How many instances the mailboxes are shared out among; none are running with 0. */}}
{{- define "ews-sync.totalShards" -}}
{{- max 1 (int .Values.replicaCount) -}}
{{- end -}}

{{/* The command and its options, as a YAML list. */}}
{{- define "ews-sync.args" -}}
- reinfer-ews
- --bind
- {{ printf "%s:%d" .Values.service.bindAddress (int .Values.service.port) | quote }}
{{- if .Values.localFiles.enabled }}
- --local-files-prefix
- {{ include "ews-sync.volumePath" . }}
- --local-files-format
- {{ .Values.localFiles.format }}
{{- else }}
- --reinfer-api-endpoint
- {{ .Values.platform.endpoint | quote }}
{{- end }}
{{- if .Values.deadLetters.enabled }}
- --dead-letter-dir
- {{ include "ews-sync.volumePath" . }}/dead-letters
{{- end }}
{{- with .Values.remoteConfig.owner }}
- --remote-config-owner
- {{ . | quote }}
- --remote-config-key
- {{ $.Values.remoteConfig.key | quote }}
{{- end }}
- --shard-name
- $(POD_NAME)
- --total-shards
- {{ include "ews-sync.totalShards" . | quote }}
- --debug-level
- {{ .Values.debugLevel | quote }}
{{- if .Values.restartOnUnrecoverableErrors }}
- --restart-on-unrecoverable-errors
{{- end }}
{{- end -}}

{{/* The proxies, as a YAML list of variables. */}}
{{- define "ews-sync.proxyEnv" -}}
{{- $proxy := .Values.proxy -}}
{{- range $kind := list "https" "http" }}
{{- if $proxy.existingSecret }}
- name: {{ upper $kind }}_PROXY
  valueFrom:
    secretKeyRef:
      name: {{ $proxy.existingSecret }}
      key: {{ upper $kind }}_PROXY
      optional: {{ eq $kind "http" }}
{{- else if get $proxy $kind }}
- name: {{ upper $kind }}_PROXY
  value: {{ get $proxy $kind | quote }}
{{- end }}
{{- end }}
{{- with $proxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end -}}
