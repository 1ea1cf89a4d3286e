// Light, dark, or as the system says: from the address (?theme=dark, for a wall) or as chosen last. Runs before the first drawing.
{
  const asked = new URLSearchParams(location.search).get("theme") ?? localStorage.getItem("theme");
  if (asked === "light" || asked === "dark") document.documentElement.dataset.theme = asked;
}
