// Carries forms to the web API. Text from the hub is only ever set as text.
"use strict";
(() => {
  const csrf = document.querySelector('meta[name="csrf-token"]');

  async function call(method, path, body) {
    const headers = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (csrf) headers["x-csrf-token"] = csrf.content;
    const options = { method, headers, credentials: "same-origin", cache: "no-store", redirect: "error" };
    if (body !== undefined) options.body = JSON.stringify(body);
    let answer;
    try {
      answer = await fetch("/api/v1" + path, options);
    } catch {
      throw new Error("The hub does not answer.");
    }
    const text = await answer.text();
    let read = {};
    try { read = JSON.parse(text); } catch { /* an empty body */ }
    if (answer.status === 401 && csrf) { location.assign("/sign-in"); }
    if (!answer.ok) throw new Error(read.detail || "The hub refused: " + answer.status);
    return read;
  }

  function handle(element, event, work) {
    if (!element) return;
    const problem = element.querySelector(".problem") || document.getElementById("problem");
    element.addEventListener(event, async (happened) => {
      happened.preventDefault();
      const button = element.matches("button") ? element : element.querySelector("button");
      button.disabled = true;
      problem.hidden = true;
      try {
        await work();
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
      } finally {
        button.disabled = false;
      }
    });
  }

  const signIn = document.getElementById("sign-in");
  handle(signIn, "submit", async () => {
    await call("POST", "/session", { token: signIn.elements.token.value.trim() });
    signIn.reset();
    location.replace("/");
  });

  handle(document.getElementById("sign-out"), "click", async () => {
    await call("DELETE", "/session");
    location.replace("/sign-in");
  });

  const create = document.getElementById("create-token");
  handle(create, "submit", async () => {
    const { name, role, expires } = create.elements;
    const wish = { name: name.value, role: role.value };
    if (expires.value === "never") wish.never_expires = true; else wish.expires_in = expires.value;
    const made = await call("POST", "/tokens", wish);
    create.querySelector(".token").textContent = made.token;
    create.querySelector(".result").hidden = false;
    create.reset();
  });

  for (const button of document.querySelectorAll("button[data-revoke]")) {
    handle(button, "click", async () => {
      const question = "Revoke the token " + button.dataset.name + "? Whoever uses it is shut out at once.";
      if (!confirm(question)) return;
      await call("DELETE", "/tokens/" + encodeURIComponent(button.dataset.revoke));
      location.reload();
    });
  }
})();
