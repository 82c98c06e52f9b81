"""y = 3x, learnt by all workers of TF_CONFIG together; each has one sample of its own, so none could do it alone."""

import sys

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
index = strategy.cluster_resolver.task_id
x = tf.constant(float(index + 1))
with strategy.scope():
    weight = tf.Variable(0.0, aggregation=tf.VariableAggregation.MEAN)


def learn() -> None:
    """One step: the change of the weight is the mean over all workers."""
    with tf.GradientTape() as tape:
        loss = (weight * x - 3 * x) ** 2
    weight.assign_sub(0.1 * tape.gradient(loss, weight))


step = tf.function(lambda: strategy.run(learn))
step()
first = float(weight.numpy())
for _ in range(20):
    step()
last = float(weight.numpy())
print(f"worker {index} of {strategy.num_replicas_in_sync}: weight {first:.3f} after one step, {last:.3f} at the end")
# gradients of the first step are -6 and -24: half of a tenth of -30
sys.exit(0 if (strategy.num_replicas_in_sync, round(first, 4), round(last, 2)) == (2, 1.5, 3.0) else 3)
