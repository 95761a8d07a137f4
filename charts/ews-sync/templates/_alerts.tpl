{{/* The groups of files/alerts.yaml, without the alerts that are left out, with labels and links as the values say. */}}
{{- define "ews-sync.alertGroups" -}}
{{- $wanted := .Values.prometheusRule -}}
{{- $known := list -}}
{{- $groups := list -}}
{{- range $group := (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- $known = append $known $rule.alert -}}
{{- if not (has $rule.alert $wanted.disabled) -}}
{{- if $wanted.runbookUrl -}}
{{- $anchor := printf "#%s" (splitList "#" $rule.annotations.runbook_url | last) -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s%s" (trimSuffix "#" $wanted.runbookUrl) $anchor) -}}
{{- end -}}
{{- $_ := set $rule "labels" (merge (dict) ($wanted.alertLabels | default dict) $rule.labels) -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}{{- $groups = append $groups (set $group "rules" $rules) -}}{{- end -}}
{{- end -}}
{{- range $name := $wanted.disabled -}}
{{- if not (has $name $known) -}}
{{- fail (printf "\n\nThese values cannot work:\n- prometheusRule.disabled: there is no alert %q; there are %s\n" $name (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}
