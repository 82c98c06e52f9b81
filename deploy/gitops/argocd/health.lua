-- Health of a TrainingJob or a TuningSweep for Argo CD, by the conditions that the operator writes (the same that Flux and Helm read).
-- Healthy: running or complete. Suspended: as asked. Progressing: on its way. Degraded: nothing will happen until somebody acts.
local hs = { status = "Progressing", message = "Waiting for the operator" }
local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
if status.observedGeneration ~= nil and obj.metadata.generation ~= nil
    and status.observedGeneration < obj.metadata.generation then
  hs.message = "Waiting for the operator to see the change"
  return hs
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is_true(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end
local function say(health, name)
  local condition = conditions[name]
  hs.status = health
  hs.message = condition.reason
  if condition.message ~= nil and condition.message ~= "" then
    hs.message = condition.reason .. ": " .. condition.message
  end
  return hs
end

if is_true("Failed") then return say("Degraded", "Failed") end
if is_true("Stalled") then return say("Degraded", "Stalled") end
if is_true("Complete") then return say("Healthy", "Complete") end
if is_true("Suspended") then return say("Suspended", "Suspended") end
if is_true("Reconciling") then return say("Progressing", "Reconciling") end
if is_true("Ready") then return say("Healthy", "Ready") end
return hs
