"""Pictures of a report's browser: python docs/screenshots.py <report folder> <picture folder> [--model <LM>]

The list of the last cell, of all or of an LM, and the page of its most aligned bilingual feature, light and dark. Needs
Chromium with its driver, and selenium.
"""

import argparse
from pathlib import Path
from shutil import which
from urllib.parse import quote

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


def screenshots(report: Path, pictures: Path, model: str | None = None) -> None:
    """Write list, feature, phone and dark pictures as PNG into `pictures`."""
    pictures.mkdir(parents=True, exist_ok=True)
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1.5"):
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(which("chromedriver")))

    def picture(name: str, width: int, height: int, address: str, ready: str, scheme: str = "light") -> None:
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature]})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 0, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get("about:blank")
        driver.get((report / "index.html").resolve().as_uri() + address)
        WebDriverWait(driver, 30).until(lambda page: page.find_elements(By.CSS_SELECTOR, ready))
        driver.save_screenshot(str(pictures / f"{name}.png"))

    try:
        picture("overview", 1280, 800, "", ".cells")
        of_model = "return cells.filter((cell) => !arguments[0] || cell.axes.model === arguments[0]).at(-1).name"
        cell = "#cell=" + quote(driver.execute_script(of_model, model), safe="")
        picture("list", 1280, 800, cell, "#rows [role=row]")
        first = driver.execute_script(
            "const yes = listed.columns.bilingual?.yes; return order.find((f) => yes?.[f]) ?? 0"
        )
        feature = f"{cell}&feature={first}"
        picture("feature", 1280, 1200, feature, ".contexts li")
        picture("feature_dark", 1280, 1200, feature, ".contexts li", "dark")
        picture("list_phone", 360, 720, cell, "#rows [role=row]")
        picture("feature_phone", 360, 720, feature, ".contexts li")
    finally:
        driver.quit()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pictures of a report's browser.")
    parser.add_argument("report", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    screenshots(arguments.report, arguments.pictures, arguments.model)
