{{- define "bertd.selector" -}}
app.kubernetes.io/name: bertd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bertd.labels" -}}
{{ include "bertd.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Flags, one a line. toJson, since a template writes a number above a million as 4e+06. */}}
{{- define "bertd.flags" -}}
{{- if .Values.model.repository }}
- --repository=/mnt/models
{{- else }}
- /mnt/models
{{- end }}
{{- if .Values.tls.secret }}
- --tls-certificate=/etc/bertd/tls/tls.crt
- --tls-key=/etc/bertd/tls/tls.key
{{- if .Values.tls.clientCa }}
- --tls-client-ca=/etc/bertd/tls/ca.crt
{{- end }}
{{- else if .Values.tls.clientCa }}
{{- fail "tls.clientCa needs tls.secret, whose ca.crt it reads: name the secret" }}
{{- else }}
- --insecure
{{- end }}
{{- if .Values.keys.secret }}
- --api-keys=/etc/bertd/keys/keys.toml
{{- end }}
{{- if .Values.loadReports }}
- --load-reports=on
{{- end }}
{{- $own := list "address" "api-keys" "cache-folder" "http-address" "insecure" "load-reports" "memory-limit" "repository" "tls-certificate" "tls-client-ca" "tls-key" }}
{{- range $name, $value := .Values.settings }}
{{- if has $name $own }}
{{- fail (printf "settings.%s is set by the chart: leave it out, and see the other values" $name) }}
{{- end }}
- {{ printf "--%s=%s" $name (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}

{{/* Seconds that a pod may take to end: both drains, and 10 for a last batch and the last spans. */}}
{{- define "bertd.grace" -}}
{{- $delay := get .Values.settings "drain-delay-seconds" | default 0 -}}
{{- $drain := get .Values.settings "drain-seconds" | default 30 -}}
{{- addf $delay $drain 10 | ceil | int64 -}}
{{- end }}

{{- define "bertd.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - type: Percent
      value: 100
      periodSeconds: 30
scaleDown:
  stabilizationWindowSeconds: 300
  policies:
    - type: Percent
      value: 20
      periodSeconds: 60
{{- end }}
