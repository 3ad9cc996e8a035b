// What the page asks the server. Addresses are relative: the token is in the page's own.

async function answered(response) {
  const body = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(body.error || `the server answered ${response.status}`);
  return body;
}

export const get = async (what) => answered(await fetch(what));

export const post = async (what, details) =>
  answered(await fetch(what, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(details) }));

// An answer that the network lost is sent again under the same key, which counts once.
export async function tell(what, details) {
  const body = JSON.stringify({ do: what, key: crypto.randomUUID(), ...details });
  const send = () => fetch("do", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  let response;
  try {
    response = await send();
  } catch {
    await new Promise((wait) => setTimeout(wait, 700));
    response = await send();
  }
  return answered(response);
}
