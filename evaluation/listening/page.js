"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const SCALES = {
  N: ["How natural does the recording sound?", ["completely unnatural", "mostly unnatural", "equally natural and unnatural", "mostly natural", "completely natural, like a person"]],
  S: ["How alike are the two voices, in timbre, accent and way of speaking?", ["certainly another speaker", "probably another speaker", "hard to say", "probably the same speaker", "certainly the same speaker"]],
  I: ["How well does the recording follow the instruction?", ["not at all", "hardly", "in part", "mostly", "completely"]],
};
const state = { listener: "", order: [], position: 0, answers: {}, heard: {}, since: 0 };

// Every listener has an order of their own that comes back with their code: xmur3 seeds mulberry32.
function random(text) {
  let h = 1779033703 ^ text.length;
  for (const c of text) { h = Math.imul(h ^ c.codePointAt(0), 3432918353); h = (h << 13) | (h >>> 19); }
  return () => {
    h |= 0; h = (h + 0x6d2b79f5) | 0;
    let t = Math.imul(h ^ (h >>> 15), 1 | h);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
function shuffled(list, next) {
  const result = list.slice();
  for (let i = result.length - 1; i > 0; i--) { const j = Math.floor(next() * (i + 1)); [result[i], result[j]] = [result[j], result[i]]; }
  return result;
}
function place() { return "voxmill-listening-" + data.session + "-" + state.listener; }
// A page opened from a file may have no storage: then a reload starts again, and nothing else is lost.
function keep() { try { localStorage.setItem(place(), JSON.stringify({ answers: state.answers, heard: state.heard, position: state.position })); } catch (error) { console.info("not kept: " + error.name); } }
function restore() {
  try { Object.assign(state, JSON.parse(localStorage.getItem(place()) || "{}")); } catch (error) { console.info("not restored: " + error.name); }
}
function show(name) { for (const id of ["start", "trial", "end"]) at(id).hidden = id !== name; }
function source(clip) { return "data:audio/flac;base64," + data.clips[clip]; }

at("count").textContent = data.trials.length;
at("listener").addEventListener("input", () => { at("begin").disabled = !at("listener").value.trim(); });
at("begin").addEventListener("click", () => {
  state.listener = at("listener").value.trim();
  const next = random(data.session + "/" + state.listener);
  // One question at a time: all of a scale, then the next.
  state.order = ["N", "S", "I"].flatMap((scale) => shuffled(data.trials.filter((trial) => trial.scale === scale), next));
  restore();
  step();
});

function step() {
  if (state.position >= state.order.length) return finish();
  const trial = state.order[state.position];
  show("trial");
  at("progress").max = state.order.length;
  at("progress").value = state.position;
  at("question").textContent = SCALES[trial.scale][0];
  at("legend").textContent = "Your rating";
  at("reference-part").hidden = trial.scale !== "S";
  at("reference").src = trial.scale === "S" ? source(trial.reference) : "";
  at("instruction-part").hidden = trial.scale !== "I";
  at("instruction").textContent = trial.instruction || "";
  at("clip").src = source(trial.clip);
  at("scores").replaceChildren(at("legend"), ...SCALES[trial.scale][1].map((words, index) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "score", value: index + 1, checked: (state.answers[trial.trial] || {}).score === index + 1 });
    input.addEventListener("change", () => answer(trial, index + 1));
    label.append(input, (index + 1) + "  " + words);
    return label;
  }));
  state.since = performance.now();
  refresh();
}
function refresh() {
  const trial = state.order[state.position], heard = state.heard[trial.trial] || {};
  const ready = heard.clip && (trial.scale !== "S" || heard.reference);
  at("scores").disabled = !ready;
  at("next").disabled = !ready || !state.answers[trial.trial];
  at("back").disabled = state.position === 0;
}
function listened(which) {
  return () => {
    const trial = state.order[state.position], heard = state.heard[trial.trial] || (state.heard[trial.trial] = {});
    heard[which] = (heard[which] || 0) + 1;
    keep();
    refresh();
  };
}
at("clip").addEventListener("ended", listened("clip"));
at("reference").addEventListener("ended", listened("reference"));
function answer(trial, score) {
  const seconds = Math.round((performance.now() - state.since) / 100) / 10;
  state.answers[trial.trial] = { trial: trial.trial, score, seconds, plays: (state.heard[trial.trial] || {}).clip || 0 };
  keep();
  refresh();
}
at("next").addEventListener("click", () => { state.position += 1; keep(); step(); });
at("back").addEventListener("click", () => { state.position -= 1; keep(); step(); });

function finish() {
  show("end");
  const answers = state.order.map((trial) => state.answers[trial.trial]).filter(Boolean);
  at("answers").value = JSON.stringify({ format: data.format, session: data.session, listener: state.listener, answers }, null, 1);
}
at("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([at("answers").value], { type: "application/json" }));
  link.download = "answers-" + state.listener.replace(/[^A-Za-z0-9_-]/g, "_") + ".json";
  link.click();
});
