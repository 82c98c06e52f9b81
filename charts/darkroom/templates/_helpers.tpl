{{/* Name of the objects: a DNS label. */}}
{{- define "darkroom.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "darkroom.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "darkroom.labels" -}}
{{ include "darkroom.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: darkroom
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "darkroom.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "darkroom.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image's reference: (dict "root" $ "image" .Values.image) */}}
{{- define "darkroom.image" -}}
{{- $registry := .root.Values.imageRegistry | trimSuffix "/" -}}
{{- $name := empty $registry | ternary .image.repository (printf "%s/%s" $registry .image.repository) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do with the objects of a namespace: the same in a ClusterRole and in a Role. */}}
{{- define "darkroom.rules" -}}
- apiGroups: [darkroom.dev]
  resources: [trainingjobs]
  verbs: [get, list, watch, create, patch, delete] # trials of TuningSweeps; delete: ttlSecondsAfterFinished
- apiGroups: [darkroom.dev]
  resources: [tuningsweeps]
  verbs: [get, list, watch]
- apiGroups: [darkroom.dev]
  resources: [trainingjobs/status, tuningsweeps/status]
  verbs: [patch]
- apiGroups: [darkroom.dev]
  resources: [trainingjobs/finalizers, tuningsweeps/finalizers] # children block their owner's deletion, which OpenShift asks this right for
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [configmaps] # the record of sweeps of more than 1,000 trials; each is asked for by its name
  verbs: [get, create]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies] # of profiles with networkPolicy
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads] # why a job waits in its queue
  verbs: [list]
- apiGroups: [scheduling.volcano.sh, scheduling.x-k8s.io, scheduling.k8s.io]
  resources: [podgroups]
  verbs: [get, create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch] # patch: repeats are counted in the first
{{- end -}}

{{/* Names of the admission policies, each of which needs a binding. */}}
{{- define "darkroom.policies" -}}
{{- $policies := list "status" "children" "trials" "pods" "deletion" -}}
{{- if or .Values.admissionPolicy.requireProfileUse .Values.admissionPolicy.requireCreateJobs -}}
{{- $policies = concat $policies (list "users" "sweep-users") -}}
{{- end -}}
{{- toJson $policies -}}
{{- end -}}
