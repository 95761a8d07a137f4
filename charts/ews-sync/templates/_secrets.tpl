{{/* Secrets where many can read them: in the ConfigMap, the arguments, the variables. Never repeats a value. */}}
{{- define "ews-sync.problems.secrets" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- range $path := include "ews-sync.secretPaths" (dict "path" "config" "value" $v.config) | fromJsonArray -}}
{{- $problems = append $problems (printf "%s would lie in a ConfigMap, open to whoever may read those: remove it, put it into %s" $path (include "ews-sync.secretPlace" (dict "name" $path "Values" $v))) -}}
{{- end -}}
{{- if contains "PRIVATE KEY-----" ($v.caBundle.pem | default "") -}}
{{- $problems = append $problems "caBundle.pem has a private key in it, and would lie in a ConfigMap: give the certificates of the authorities only" -}}
{{- end -}}
{{- range $key := list "ews_endpoint" "host" "auth_oauth_authority" -}}
{{- if contains "@" (get ($v.config | default dict) $key | toString) -}}
{{- $problems = append $problems (printf "config.%s has a user or password in it, and would lie in a ConfigMap: give the address only, the user in config.auth_user, and the password in %s" $key (include "ews-sync.secretPlace" (dict "name" "password" "Values" $v))) -}}
{{- end -}}
{{- end -}}
{{- if contains "@" ($v.platform.endpoint | default "") -}}
{{- $problems = append $problems (printf "platform.endpoint has a user or password in it, which everybody could read in the pod: give the address only; the platform takes the token in %s" (include "ews-sync.secretPlace" (dict "name" "token" "Values" $v))) -}}
{{- end -}}
{{- range $v.extraEnv -}}
{{- if eq .name "POD_NAME" -}}
{{- $problems = append $problems "extraEnv: POD_NAME is the chart's, which tells by it which mailboxes are whose: remove it" -}}
{{- else if hasKey . "value" -}}
{{- if has (upper .name) (list "REINFER_API_TOKEN" "REINFER_EWS_AUTH_PASS" "REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET" "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_PRIVATE_KEY") -}}
{{- $problems = append $problems (printf "extraEnv: %s could be read by everybody in the pod: remove it, put it into %s" .name (include "ews-sync.secretPlace" (dict "name" .name "Values" $v))) -}}
{{- else if regexMatch "://[^/]*@" (toString .value) -}}
{{- $problems = append $problems (printf "extraEnv: %s has a user or password in it, which everybody could read in the pod: put it into a Secret, and give valueFrom.secretKeyRef instead of value" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{/* What looks like a secret below a value of the config, as a JSON list of paths. Addresses of mailboxes never do. */}}
{{- define "ews-sync.secretPaths" -}}
{{- $found := list -}}
{{- $above := .path -}}
{{- if kindIs "map" .value -}}
{{- range $key, $below := .value -}}
{{- $path := printf "%s.%s" $above $key -}}
{{- if and (regexMatch "(?i)pass|pwd|secret|token|private[-_ ]?key" $key) (not (contains "@" $key)) -}}
{{- $found = append $found $path -}}
{{- else -}}
{{- $found = concat $found (include "ews-sync.secretPaths" (dict "path" $path "value" $below) | fromJsonArray) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $number, $below := .value -}}
{{- $found = concat $found (include "ews-sync.secretPaths" (dict "path" (printf "%s[%d]" $above $number) "value" $below) | fromJsonArray) -}}
{{- end -}}
{{- else if contains "PRIVATE KEY-----" (toString .value) -}}
{{- $found = append $found $above -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Where a secret of that name belongs, in words. */}}
{{- define "ews-sync.secretPlace" -}}
{{- $last := splitList "." (lower .name) | last -}}
{{- $kind := "password" -}}
{{- if contains "token" $last -}}{{- $kind = "apiToken" -}}
{{- else if regexMatch "private|certificate" $last -}}{{- $kind = "oauthPrivateKey" -}}
{{- else if contains "secret" $last -}}{{- $kind = "oauthClientSecret" -}}
{{- end -}}
the Secret {{ .Values.credentials.secretName }} under the key {{ get .Values.credentials.keys $kind }}
{{- if ne $kind "apiToken" }}, and set login.type{{ end -}}
{{- end -}}
