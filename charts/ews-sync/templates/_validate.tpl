{{/* What the schema cannot say: values that contradict each other, each refused with what to do. All at once. */}}
{{- define "ews-sync.validate" -}}
{{- $problems := concat (include "ews-sync.problems.destination" . | fromJsonArray) (include "ews-sync.problems.config" . | fromJsonArray) (include "ews-sync.problems.login" . | fromJsonArray) (include "ews-sync.problems.secrets" . | fromJsonArray) (include "ews-sync.problems.cluster" . | fromJsonArray) (include "ews-sync.problems.pod" . | fromJsonArray) -}}
{{- if $problems -}}
{{- fail (printf "\n\nThese values cannot work:\n- %s\n" (join "\n- " $problems)) -}}
{{- end -}}
{{- end -}}

{{- define "ews-sync.problems.destination" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- if and $v.platform.endpoint $v.localFiles.enabled -}}
{{- $problems = append $problems "platform.endpoint and localFiles.enabled cannot be given together: the first syncs into the platform, the second writes files; choose one" -}}
{{- else if not (or $v.platform.endpoint $v.localFiles.enabled) -}}
{{- $problems = append $problems "platform.endpoint is missing: set it to https://<mydomain>.reinfer.io/api/ to sync into the platform, or localFiles.enabled to true to write files" -}}
{{- end -}}
{{- if and $v.platform.endpoint (not (contains "@" $v.platform.endpoint)) (not (regexMatch "^https?://[^ ]+$" $v.platform.endpoint)) -}}
{{- $problems = append $problems (printf "platform.endpoint must be an address such as https://mydomain.reinfer.io/api/, not %q" $v.platform.endpoint) -}}
{{- end -}}
{{- if contains "<" ($v.platform.endpoint | default "") -}}
{{- $problems = append $problems "platform.endpoint still has a placeholder: put your own domain in the place of <mydomain>" -}}
{{- end -}}
{{- if and $v.localFiles.enabled $v.deadLetters.enabled -}}
{{- $problems = append $problems "deadLetters.enabled cannot be given together with localFiles.enabled: there the dead letters lie beside the mail; leave it out" -}}
{{- end -}}
{{- if and $v.persistence.existingClaim (gt (int $v.replicaCount) 1) -}}
{{- $problems = append $problems (printf "persistence.existingClaim cannot be shared by %d instances, each needs a volume of its own: leave it empty, or set replicaCount to 1" (int $v.replicaCount)) -}}
{{- end -}}
{{- if and $v.persistence.existingClaim (not (include "ews-sync.hasVolume" .)) -}}
{{- $problems = append $problems "persistence.existingClaim has no use: set localFiles.enabled or deadLetters.enabled, or leave it empty" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "ews-sync.problems.config" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- $given := list -}}
{{- if $v.config -}}{{- $given = append $given "config" -}}{{- end -}}
{{- if $v.existingConfigMap.name -}}{{- $given = append $given "existingConfigMap.name" -}}{{- end -}}
{{- if or $v.remoteConfig.owner $v.remoteConfig.key -}}{{- $given = append $given "remoteConfig" -}}{{- end -}}
{{- if gt (len $given) 1 -}}
{{- $problems = append $problems (printf "%s cannot be given together: there is one config; keep one of them" (join " and " $given)) -}}
{{- else if not $given -}}
{{- $problems = append $problems "the config is missing: give config (the JSON file's keys), existingConfigMap.name, or remoteConfig.owner and remoteConfig.key" -}}
{{- end -}}
{{- if and (or $v.remoteConfig.owner $v.remoteConfig.key) (not (and $v.remoteConfig.owner $v.remoteConfig.key)) -}}
{{- $problems = append $problems "remoteConfig needs both: the owner (the project) and the key (the config's name)" -}}
{{- end -}}
{{- $secrets := include "ews-sync.secretPaths" (dict "path" "config" "value" $v.config) | fromJsonArray -}}
{{- $known := include "ews-sync.configKeys" . | fromYamlArray -}}
{{- range $key := keys ($v.config | default dict) | sortAlpha -}}
{{- if not (or (has $key $known) (has (printf "config.%s" $key) $secrets)) -}}
{{- $problems = append $problems (printf "config: there is no key %q; there are %s" $key (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.config (not $v.config.mailboxes) -}}
{{- $problems = append $problems "config.mailboxes is missing: name at least one mailbox, with its bucket" -}}
{{- end -}}
{{- if and $v.caBundle.pem $v.caBundle.existingConfigMap -}}
{{- $problems = append $problems "caBundle.pem and caBundle.existingConfigMap cannot be given together: keep one of them" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{/* The keys of the config that may lie in a ConfigMap: those of docs/config.schema.json without the secrets. */}}
{{- define "ews-sync.configKeys" -}}
- access_type
- audit_email
- auth_oauth_authority
- auth_oauth_client_credential_certificate
- auth_oauth_client_credential_thumbprint
- auth_oauth_client_id
- auth_type
- auth_user
- emails_per_folder
- ews_endpoint
- ews_ssl_ca_bundle
- ews_ssl_ciphers
- ews_ssl_verify
- host
- mailboxes
- max_concurrent_uploads
- poll_frequency
- poll_message_sleep
- port
- reinfer_batch_size
{{- end -}}

{{- define "ews-sync.problems.login" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- $kinds := dict "ntlm" (list "password") "basic" (list "password") "oauth2" (list "oauth2-secret" "oauth2-certificate") "kerberos" (list "none") -}}
{{- with get ($v.config | default dict) "auth_type" -}}
{{- $fitting := get $kinds . | default list -}}
{{- if and $fitting (not (has $v.login.type $fitting)) -}}
{{- $problems = append $problems (printf "login.type %q does not fit config.auth_type %q: set login.type to %s" $v.login.type . (join " or " $fitting)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.config (eq $v.login.type "oauth2-certificate") (not $v.credentials.withCertificate) (not (hasKey $v.config "auth_oauth_client_credential_thumbprint")) (not (hasKey $v.config "auth_oauth_client_credential_certificate")) -}}
{{- $problems = append $problems "the certificate is missing: set credentials.withCertificate to true and put it into the Secret, or give config.auth_oauth_client_credential_thumbprint" -}}
{{- end -}}
{{- range $name := include "ews-sync.neededSecrets" . | fromJsonArray -}}
{{- if and $v.credentials.create (not (get $v.credentials.values $name)) -}}
{{- $problems = append $problems (printf "credentials.values.%s is missing, and credentials.create needs it: give it, or set credentials.create to false and make the Secret yourself" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (not $v.credentials.create) (not $v.credentials.secretName) (ne "[]" (include "ews-sync.neededSecrets" .)) -}}
{{- $problems = append $problems "credentials.secretName is missing: name the Secret that has the token and the password" -}}
{{- end -}}
{{- if and (not $v.credentials.create) (compact (values $v.credentials.values)) -}}
{{- $problems = append $problems "credentials.values are given, but not used: set credentials.create to true, or remove them" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "ews-sync.problems.cluster" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- range $name := list "https" "http" -}}
{{- $address := get $v.proxy $name | default "" -}}
{{- if and $address (not (regexMatch "^https?://[^ ]+$" $address)) -}}
{{- $problems = append $problems (printf "proxy.%s must be an address such as http://proxy.example.com:3128" $name) -}}
{{- end -}}
{{- if contains "@" $address -}}
{{- $problems = append $problems (printf "proxy.%s has a user or password in it, which everybody could read in the pod: put it into a Secret with the key %s_PROXY, and name that in proxy.existingSecret" $name (upper $name)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.proxy.existingSecret (or $v.proxy.https $v.proxy.http) -}}
{{- $problems = append $problems "proxy.existingSecret cannot be given together with proxy.https or proxy.http: keep one of them" -}}
{{- end -}}
{{- range $v.extraVolumes -}}
{{- if hasKey . "hostPath" -}}
{{- $problems = append $problems (printf "extraVolumes: %q is a hostPath, which the restricted Pod Security Standard refuses, and which stays behind when the pod moves: use a PersistentVolumeClaim" .name) -}}
{{- end -}}
{{- end -}}
{{- $config := $v.config | default dict -}}
{{- $port := int (get $config "port" | default 80) -}}
{{- $ports := list -}}
{{- range $v.networkPolicy.egress.exchange.ports -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- if and $v.networkPolicy.enabled (hasKey $config "host") (not (has $port $ports)) (not (include "ews-sync.hasProxy" .)) -}}
{{- $problems = append $problems (printf "networkPolicy.egress.exchange.ports does not have %d, which is where the config looks for Exchange (config.port, 80 where it is not given): add it" $port) -}}
{{- end -}}
{{- if lt (int $v.terminationGracePeriodSeconds) 30 -}}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds %d is too short: the appliance takes up to 25 seconds to finish what it is storing; set it to 30 or more" (int $v.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- if and $v.podDisruptionBudget.enabled (eq 0 (int $v.podDisruptionBudget.maxUnavailable)) (not (kindIs "string" $v.podDisruptionBudget.maxUnavailable)) -}}
{{- $problems = append $problems "podDisruptionBudget.maxUnavailable 0 would keep a node from ever being drained: set it to 1" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "ews-sync.problems.pod" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- if regexMatch "^(?i)(127[.][0-9.]+|localhost|\\[?::1\\]?)$" $v.service.bindAddress -}}
{{- $problems = append $problems (printf "service.bindAddress %q is open to nobody outside of the container, not even to the probes: set it to 0.0.0.0, or to [::] with IPv6 only" $v.service.bindAddress) -}}
{{- end -}}
{{- range $name := list "commonLabels" "podLabels" -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" -}}
{{- if hasKey (get $v $name | default dict) $label -}}
{{- $problems = append $problems (printf "%s: %s is the chart's own, by which things find each other: remove it; to change names, set nameOverride" $name $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with (($v.resources).limits).memory -}}
{{- if lt (include "ews-sync.bytes" . | float64) 134217728.0 -}}
{{- $problems = append $problems (printf "resources.limits.memory %v is too little: the process may need up to 128Mi, and would be killed again and again; set it to 256Mi" .) -}}
{{- end -}}
{{- end -}}
{{- with ($v.temporaryFiles).sizeLimit -}}
{{- if lt (include "ews-sync.bytes" . | float64) 209715200.0 -}}
{{- $problems = append $problems (printf "temporaryFiles.sizeLimit %v is too little: one message may take 150 MB, and the pod would be evicted; set it to 200Mi or more, better 1Gi" .) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "podSecurityContext" "securityContext" -}}
{{- $context := get $v $name | default dict -}}
{{- if and (ne "<nil>" (get $context "runAsUser" | toString)) (hasKey $context "runAsUser") (eq 0 (int (get $context "runAsUser"))) -}}
{{- $problems = append $problems (printf "%s.runAsUser 0 is root, which the restricted Pod Security Standard refuses, and which nothing needs: set it to 10001, or leave it out" $name) -}}
{{- end -}}
{{- if and (hasKey $context "runAsNonRoot") (not (get $context "runAsNonRoot")) -}}
{{- $problems = append $problems (printf "%s.runAsNonRoot false would allow root, which the restricted Pod Security Standard refuses: set it to true, or leave it out" $name) -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{/* An amount of Kubernetes' such as 128Mi, in bytes. */}}
{{- define "ews-sync.bytes" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 -}}
{{- mulf (regexFind "^[0-9.]+" .) (get $units (regexFind "[a-zA-Z]*$" .)) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}
