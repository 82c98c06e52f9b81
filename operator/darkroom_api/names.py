"""Every name that crosses a border: labels, environment, reasons, condition types."""

GROUP = "darkroom.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "darkroom-operator"
CONTROLLER = f"{GROUP}/operator"  # who reports events, and spec.managedBy where it is not absent

# --- Labels on every child (Job, Pod, Service). ---
LABEL_JOB = f"{GROUP}/training-job"  # name of the TrainingJob
LABEL_JOB_UID = f"{GROUP}/training-job-uid"  # tells a job apart from an earlier one of the same name
LABEL_ATTEMPT = f"{GROUP}/attempt"  # 1, 2, 3, ...
LABEL_PROFILE = f"{GROUP}/profile"
ANNOTATION_DIGEST = f"{GROUP}/digest"  # on Jobs: of the spec that the operator asked for
LABEL_SWEEP = f"{GROUP}/tuning-sweep"  # on a trial, and on a refit: name of the TuningSweep
LABEL_SWEEP_UID = f"{GROUP}/tuning-sweep-uid"
LABEL_TRIAL = f"{GROUP}/trial"  # 0, 1, 2, ...; a refit has none
ANNOTATION_PARAMETERS = f"{GROUP}/parameters"  # on a trial: JSON of names and values
ANNOTATION_GENERATION = f"{GROUP}/generation"  # on a trial: of CMAES and NSGAII
ANNOTATION_OBJECTIVE = f"{GROUP}/objective"  # on a trial: the metric whose values by epoch its status keeps
ANNOTATION_LEAVE = f"{GROUP}/leave"  # on a trial: `Pruned: why` or `SweepEnded: why`; it saves and leaves
ANNOTATION_GANG = f"{GROUP}/gang"  # on Jobs: who schedules the pods all or none, where it is not nobody
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "darkroom"
LABEL_NAME = "app.kubernetes.io/name"
OPERATOR = "darkroom"  # LABEL_NAME of the operator's own pods, as the chart sets it
REPORTS_PORT_NAME = "reports"  # of the operator's container, for live reports

# --- What other systems read on our objects, in their words. ---
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"  # label of a Job: the LocalQueue; Kueue's webhook then creates it suspended
KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"  # label of a Job: the WorkloadPriorityClass
KUEUE_MIN_PARALLELISM = (
    "kueue.x-k8s.io/job-min-parallelism"  # annotation of a Job: how few pods it may be admitted with
)
KUEUE_COMPLETIONS = (
    "kueue.x-k8s.io/job-completions-equal-parallelism"  # annotation of a Job: it then ends with that many too
)
KUEUE_JOB_UID = "kueue.x-k8s.io/job-uid"  # label of Kueue's Workload: whose it is
KUEUE_REQUIRED_TOPOLOGY = "kueue.x-k8s.io/podset-required-topology"  # annotation of pods: label of nodes
KUEUE_PREFERRED_TOPOLOGY = "kueue.x-k8s.io/podset-preferred-topology"
VOLCANO_POD_GROUP = "scheduling.k8s.io/group-name"  # annotation of pods: the PodGroup
COSCHEDULING_POD_GROUP = "scheduling.x-k8s.io/pod-group"  # label of pods: the PodGroup

# --- What the operator tells a container through its environment. ---
ENV_JOB = "DARKROOM_JOB"
ENV_NAMESPACE = "DARKROOM_NAMESPACE"
ENV_ATTEMPT = "DARKROOM_ATTEMPT"
ENV_RUN_DIR = "DARKROOM_RUN_DIR"  # where checkpoints and the exported model go; the same in every attempt
ENV_CONFIG = "DARKROOM_CONFIG"  # JSON of TrainerConfig, for the built-in trainer
ENV_CPU_LIMIT = "DARKROOM_CPU_LIMIT"  # the pod's CPU limit in whole cores, rounded up
ENV_POD_IP = "DARKROOM_POD_IP"
ENV_NODE_INDEX = "DARKROOM_NODE_INDEX"  # 0, 1, 2, ...: the pod's own, for TF_CONFIG
TF_CONFIG = "TF_CONFIG"  # TensorFlow's own name: reserved where the operator sets it
ENV_STALL_SECONDS = (
    "DARKROOM_STALL_SECONDS"  # without progress for so long, the trainer is to end itself, with its stacks
)
ENV_TERMINATION_LOG = "DARKROOM_TERMINATION_LOG"  # file whose text becomes the termination message
ENV_REPORT_URL = "DARKROOM_REPORT_URL"  # where live reports are posted; absent: this operator takes none
ENV_REPORT_CA = "DARKROOM_REPORT_CA"  # PEM of the authority that signed the certificate of that URL
ENV_REPORT_TOKEN_FILE = "DARKROOM_REPORT_TOKEN_FILE"  # noqa: S105 - a file of a bearer token; kubelet renews it within the hour
REPORT_AUDIENCE = f"{GROUP}/report"  # of that token: it opens nothing else

# Users may not set these: the operator does, and a second opinion would break the rendezvous.
RESERVED_ENV_PREFIXES = ("PET_", "DARKROOM_", "TORCHELASTIC_")
RESERVED_ENV_NAMES = (
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "JOB_COMPLETION_INDEX",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "NODE_RANK",
    "RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
)

# --- Where things are mounted in a training pod. ---
DATA_DIR = "/darkroom/data"
WEIGHTS_DIR = "/darkroom/weights"
RUNS_DIR = "/darkroom/runs"
FEATURES_DIR = "/darkroom/features"
REPORT_TOKEN_DIR = "/var/run/secrets/darkroom.dev"  # noqa: S105
TERMINATION_LOG = "/dev/termination-log"
RENDEZVOUS_PORT = 29400
MASTER_PORT = 29500
TENSORFLOW_PORT = 2222

# --- Condition types. Complete, Failed, Suspended are batch/v1's words; Ready, Reconciling, Stalled are kstatus's. ---
COMPLETE = "Complete"  # training ended well; terminal
FAILED = "Failed"  # training ended badly; terminal
SUSPENDED = "Suspended"  # spec.suspend is obeyed: no pods
READY = "Ready"  # every pod runs, or the job is complete, or it is suspended as asked
RECONCILING = "Reconciling"  # on the way there: pods missing, pulling, restarting
STALLED = "Stalled"  # nothing will happen until somebody changes something
CONDITION_TYPES = (COMPLETE, FAILED, SUSPENDED, READY, RECONCILING, STALLED)

# --- Reasons, each in the order of a job's life. ---
REASON_QUEUED = "Queued"  # its queue has no room yet; the queue says why in the message
REASON_NO_QUEUE = "NoQueue"  # it waits in a queue that nobody serves: no such queue, or nothing that acts on it
REASON_NO_GANG_SCHEDULER = "NoGangScheduler"  # the cluster does not serve the PodGroups that spec.scheduling.gang needs
REASON_PENDING = "Pending"  # the Job exists, its pods do not run yet
REASON_UNSCHEDULABLE = "Unschedulable"  # the scheduler says why in the message: resources, taints, a missing claim
REASON_IMAGE_PULL = "ImagePullFailed"  # kubelet's message names the image
REASON_CONTAINER_CONFIG = "ContainerConfigError"  # kubelet cannot make the container
REASON_PODS_NOT_CREATED = "PodsNotCreated"  # quota, pod security or a policy refused the pods
REASON_RUNNING = "Running"  # every pod runs
REASON_STOPPING = "Stopping"  # a pod has failed or is leaving: the attempt ends when its last pod has gone
REASON_RESTARTING = "Restarting"  # waiting to start the next attempt
REASON_SUSPENDED = "Suspended"  # spec.suspend
REASON_COMPLETED = "Completed"  # the whole schedule ran
REASON_TARGET_REACHED = "TargetReached"  # the target metric came early
REASON_BUDGET_SPENT = "BudgetSpent"  # the schedule was bent to end inside the budget
REASON_PLATEAU = "Plateau"  # val stopped getting better: vision.schedule.earlyStop
REASON_PRUNED = "Pruned"  # a sweep had seen enough
REASON_SWEEP_ENDED = "SweepEnded"  # the sweep was over while the trial ran
REASON_DISRUPTED = "Disrupted"  # drained, evicted, preempted or lost with its node: free
REASON_PREEMPTED = "Preempted"  # its queue took the nodes back for somebody else: free, and it queues again
REASON_ASKED_TO_LEAVE = "AskedToLeave"  # SIGTERM, left after a checkpoint: free
REASON_JOB_DELETED = "JobDeleted"  # somebody deleted the attempt's Job: free
REASON_PROFILE_CHANGED = (
    "ProfileChanged"  # the profile, or spec.scheduling, was changed before any pod of the attempt ran: free
)
REASON_OUT_OF_MEMORY = "OutOfMemory"  # the kernel's OOM killer: spends a restart
REASON_DATA_ERROR = "DataError"  # exit 65: no restart can help
REASON_CONFIG_ERROR = "ConfigError"  # exit 78: no restart can help
REASON_FIDELITY_TOO_LOW = "FidelityTooLow"  # exit 79: the thresholds of synthetic.gate; no restart can help
REASON_SOFTWARE_ERROR = "SoftwareError"  # exit 70 or any other: spends a restart
REASON_PEER_LOST = "PeerLost"  # the process group broke because another rank went away: a consequence, not a cause
REASON_NO_PROGRESS = "NoProgress"  # no step for stallSeconds: spends a restart
REASON_KILLED = "Killed"  # exit 137 without an OOM: spends a restart
REASON_RESTART_RULE = "RestartRule"  # a rule of spec.restart says Fail; the message names it and the cause
REASON_RESTARTS_EXHAUSTED = "RestartsExhausted"  # maxRestarts spent
REASON_DEADLINE_EXCEEDED = "DeadlineExceeded"  # activeDeadlineSeconds passed
REASON_STARTUP_DEADLINE_EXCEEDED = "StartupDeadlineExceeded"  # not every pod ran in time; the message says what held it
REASON_PROFILE_NOT_FOUND = "ProfileNotFound"  # no profile of that name in the operator's configuration
REASON_INVALID_SPEC = "InvalidSpec"  # the API server accepted what this operator cannot read
REASON_LIMIT_EXCEEDED = "ProfileLimitExceeded"  # more nodes than the profile allows
REASON_PRIORITY_NOT_ALLOWED = (
    "PriorityClassNotAllowed"  # the profile's list of priority classes lacks the one asked for
)
REASON_REJECTED = "Rejected"  # the API server refused a child object
REASON_NAME_TAKEN = "NameTaken"  # a child's name belongs to an object of somebody else

# --- Reasons of a TuningSweep, beside those above. ---
REASON_SEARCHING = "Searching"  # trials run
REASON_REFITTING = "Refitting"  # the last training runs
REASON_MAX_TRIALS = "MaxTrialsReached"  # stopping.maxTrials
REASON_NO_IMPROVEMENT = "NoImprovement"  # stopping.noImprovementTrials
REASON_SPACE_EXHAUSTED = "SpaceExhausted"  # there is nothing left to try
REASON_TOO_MANY_FAILED = "TooManyFailedTrials"  # stopping.maxFailedTrials
REASON_NO_RESULT = "NoTrialSucceeded"  # the search is over, and nothing came of it
REASON_REFIT_FAILED = "RefitFailed"  # the last training
# --- Reasons of a trial's record, beside those of TrainingJobs. ---
REASON_INVALID_PARAMETERS = "InvalidParameters"  # together they make no valid TrainingJob: none was made
REASON_METRIC_MISSING = "MetricMissing"  # it ended without a value of an objective or a constraint
REASON_LEDGER_LOST = "LedgerLost"  # a ConfigMap with records of trials is gone or not what it was
REASON_TRIAL_DELETED = "TrialDeleted"  # somebody deleted it
