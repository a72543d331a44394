// Draws what the page holds as JSON: spend by day, stacked. The same numbers are in the table below the chart.
(() => {
  const canvas = document.getElementById("spend-chart");
  const source = document.getElementById("spend-chart-data");
  if (!canvas || !source) return;
  const data = JSON.parse(source.textContent);
  // Told apart by lightness too, on light and on dark ground.
  const colours = ["#2f6fd0", "#f2a33a", "#2a9d8f", "#c0519c", "#86a8e7", "#8a6d3b", "#e4572e"];
  const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumSignificantDigits: 4 });
  const root = document.documentElement;
  const isDark = () => root.dataset.bsTheme === "dark";
  const colourOf = (index) => (index < colours.length ? colours[index] : isDark() ? "#7a828c" : "#a3abb5");
  let chart = null;
  const draw = () => {
    chart?.destroy();
    const ink = isDark() ? "#a7adb5" : "#5c6570";
    const line = isDark() ? "rgba(255, 255, 255, .12)" : "rgba(0, 0, 0, .1)";
    chart = new Chart(canvas, {
      type: "bar",
      data: {
        labels: data.days,
        datasets: data.series.map((one, index) => ({ label: one.name, data: one.usd.map(Number), backgroundColor: colourOf(index), maxBarThickness: 42 })),
      },
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        plugins: {
          legend: { display: data.series.length > 1, position: "bottom", labels: { color: ink, boxWidth: 12, boxHeight: 12 } },
          tooltip: {
            filter: (item) => item.raw > 0,
            itemSort: (a, b) => b.raw - a.raw,
            callbacks: {
              label: (item) => `${item.dataset.label}: ${dollars.format(item.raw)}`,
              footer: (items) => (items.length > 1 ? `Together: ${dollars.format(items.reduce((sum, item) => sum + item.raw, 0))}` : ""),
            },
          },
        },
        scales: {
          x: { stacked: true, grid: { display: false }, border: { color: line }, ticks: { color: ink, maxRotation: 0, autoSkipPadding: 16 } },
          y: { stacked: true, beginAtZero: true, grid: { color: line }, border: { display: false }, ticks: { color: ink, maxTicksLimit: 5, callback: (value) => dollars.format(value) } },
        },
      },
    });
  };
  draw();
  new MutationObserver(draw).observe(root, { attributes: true, attributeFilter: ["data-bs-theme"] });
})();
