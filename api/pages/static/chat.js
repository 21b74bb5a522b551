// The chat page: sends the conversation to /v1/chat/completions as any client would, and shows the answer as it comes.
"use strict";
(() => {
  const form = document.querySelector("#chat");
  const log = document.querySelector("#talk");
  const stop = document.querySelector("#stop");
  const messages = [];
  let running = null;

  function say(role, text) {
    const entry = document.createElement("article");
    entry.className = `said-by-${role}`;
    const name = document.createElement("h3");
    name.textContent = role;
    const body = document.createElement("p");
    body.dir = "auto";
    body.textContent = text;
    const note = document.createElement("p");
    note.className = "note";
    entry.append(name, body, note);
    log.append(entry);
    entry.scrollIntoView({ block: "nearest" });
    return { body, note };
  }

  /** The `data:` lines of a stream, one at a time. */
  async function* lines(stream) {
    const decoder = new TextDecoder();
    let rest = "";
    for (const reader = stream.getReader(); ; ) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value || new Uint8Array(), { stream: !done });
      const parts = rest.split("\n");
      rest = parts.pop();
      for (const part of parts) if (part.startsWith("data:")) yield part.slice(5).trim();
      if (done) return;
    }
  }

  function figures(chunk, startedMs) {
    const told = chunk.aigateway || {};
    const cost = told.cost_usd === null || told.cost_usd === undefined ? "cost unknown" : `${told.cost_usd} USD`;
    const tokens = chunk.usage ? `${chunk.usage.prompt_tokens} + ${chunk.usage.completion_tokens} tokens` : "";
    const seconds = `${((performance.now() - startedMs) / 1000).toFixed(1)} s`;
    return [told.provider && `${told.provider}/${told.model}`, tokens, cost, seconds].filter(Boolean).join(" · ");
  }

  async function ask(model, shown) {
    const startedMs = performance.now();
    const headers = { "content-type": "application/json" };
    const body = { model, messages, stream: true, stream_options: { include_usage: true } };
    const answer = await fetch("/v1/chat/completions", {
      method: "POST", headers, body: JSON.stringify(body), signal: running.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    let text = "";
    for await (const line of lines(answer.body)) {
      if (line === "[DONE]") break;
      const chunk = JSON.parse(line);
      if (chunk.error) throw new Error(chunk.error.message);
      text += (chunk.choices && chunk.choices[0] && chunk.choices[0].delta.content) || "";
      shown.body.textContent = text;
      if (chunk.usage) shown.note.textContent = figures(chunk, startedMs);
    }
    return text;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.elements.text.value.trim();
    if (!text || running) return;
    running = new AbortController();
    stop.hidden = false;
    form.elements.text.value = "";
    messages.push({ role: "user", content: text });
    say("user", text);
    const shown = say("assistant", "");
    try {
      messages.push({ role: "assistant", content: await ask(form.elements.model.value, shown) });
    } catch (error) {
      messages.pop();
      form.elements.text.value = text;
      shown.note.textContent = error.name === "AbortError" ? "Stopped." : error.message;
      shown.note.classList.add("fault");
    }
    running = null;
    stop.hidden = true;
    form.elements.text.focus();
  });

  form.elements.text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  stop.addEventListener("click", () => running && running.abort());
})();
